"""Drawing over HTTP in OpenAI's form: POST /v1/images/generations, GET /v1/models.

https://platform.openai.com/docs/api-reference/images/create. Clients of that service work with
another base URL. Besides its fields, a request can have "seed", and the settings of the model by
name ("guidance", "negative_prompt", ...); the client of OpenAI sends such with `extra_body`.
"""

import base64
import hmac
import io
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from t2i_jax.serve.worker import Busy, Worker, check_request

MAX_BODY = 2**20  # bytes
# What that service has and no model here: taken, and without effect.
NO_EFFECT = (
    *("model", "user", "quality", "style", "background", "moderation"),
    *("output_format", "output_compression"),
)
FORMATS = ("b64_json", "url")


class Refused(Exception):
    """A request that is answered with an error. status: of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


def make_router(worker: Worker, name: str, password: str = "") -> APIRouter:
    """Return the routes.

    name: of the model.
    password: the key that clients have to send; "" for none.
    """
    router = APIRouter(prefix="/v1")

    def check_key(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        # Headers are read as latin-1, whatever was sent.
        if password and not hmac.compare_digest(given.encode("latin-1"), password.encode()):
            raise Refused(401, "the API key is not the password of this server")

    @router.get("/models")
    async def models(request: Request) -> JSONResponse:
        try:
            check_key(request)
        except Refused as error:
            return _error(error)
        about = {"id": name, "object": "model", "created": 0, "owned_by": "t2i_jax"}
        return JSONResponse({"object": "list", "data": [about]})

    @router.post("/images/generations")
    async def generations(request: Request) -> JSONResponse:
        try:
            check_key(request)
            body = await _read_json(request)
            pictures = await run_in_threadpool(draw, worker, body)
        except Refused as error:
            return _error(error)
        return JSONResponse({"created": int(time.time()), "data": pictures})

    return router


def draw(worker: Worker, body: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the pictures that a request asks for, in the form of the answer.

    Raises Refused, saying what is wrong.
    """
    given = {name: x for name, x in body.items() if name not in NO_EFFECT and x is not None}
    prompt, num = given.pop("prompt", None), given.pop("n", 1)
    seed, size = given.pop("seed", 0), given.pop("size", "auto")
    form = given.pop("response_format", "b64_json")
    try:
        if not isinstance(prompt, str):
            raise ValueError("prompt is missing: it is a text")
        if not isinstance(num, int) or isinstance(num, bool):
            raise ValueError(f"n is {num!r:.40}: it is a whole number")
        if form not in FORMATS:
            raise ValueError(f"response_format is {form!r:.40}: it can be {' or '.join(FORMATS)}")
        settings = {**given, **_sides(worker, size)}
        check_request([prompt], num, settings)
        drawn, told = worker.run(lambda pipe: pipe(prompt, num=num, seed=seed, **settings))
    except Busy as error:
        raise Refused(429, str(error)) from None
    except (ValueError, TypeError) as error:
        raise Refused(400, str(error)) from error
    notes = {"warning": "; ".join(told)} if told else {}
    return [{form: _encoded(image, form), **notes} for image in drawn.images]


def _sides(worker: Worker, size: Any) -> dict[str, int]:
    """Return the settings for a size such as "1024x1024"; none for "auto".

    Raises ValueError for one that the model does not draw.
    """
    if size == "auto":
        return {}
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(size))
    if not found:
        raise ValueError(f"size is {size!r:.40}: it is auto, or width x height as in 512x512")
    width, height = map(int, found.groups())
    pipe, side = worker.pipe, worker.pipe.config.data.resolution
    if "width" in pipe.family.settings.get("sample", {}):
        return {"width": width, "height": height}
    if (width, height) != (side, side):
        raise ValueError(f"size is {size}: this model draws {side}x{side} alone")
    return {}


def _encoded(image, form: str) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/png;base64,{text}" if form == "url" else text


async def _read_json(request: Request) -> dict:
    """Return the object in the body. Raises Refused for anything else, and if it is too large."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY:
            raise Refused(413, f"the request is larger than {MAX_BODY:,} bytes")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "the request is not a JSON object")
    return body


def _error(error: Refused) -> JSONResponse:
    kind = "server_error" if error.status == 429 else "invalid_request_error"
    about = {"message": str(error), "type": kind, "param": None, "code": None}
    return JSONResponse({"error": about}, error.status)
