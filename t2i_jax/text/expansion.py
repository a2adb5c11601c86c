"""Prompts rewritten by a language model behind an OpenAI-compatible endpoint.

A prompt is never lost: if the endpoint fails, is too slow or answers nonsense, the prompt stays as
it is, and the reason is kept.
"""

import ipaddress
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_LETTERS = 1000  # of a prompt that is rewritten, and of an answer
MAX_BYTES = 2**20  # of what an endpoint sends
TIMEOUT = 30.0  # seconds for one answer
AT_ONCE = 8  # requests
PATH = "/chat/completions"


class Expansion(NamedTuple):
    """What is drawn of a prompt.

    prompt: what is drawn: the answer of the language model, or `original`.
    original: what was asked for.
    model: the language model, or "" if none was asked.
    seed: what the model was given.
    error: why there is no answer, or "".
    """

    prompt: str
    original: str
    model: str = ""
    seed: int = 0
    error: str = ""

    def note(self) -> dict[str, Any]:
        """Return what the metadata of a picture says of it: "prompt", and how it came about."""
        if not self.model:
            return {"prompt": self.prompt}
        told = {"prompt": self.original, "model": self.model, "seed": self.seed}
        told |= {"error": self.error} if self.error else {}
        return {"prompt": self.prompt, "expansion": told}


class Answer(NamedTuple):
    """A text, and the name of the model that wrote it."""

    text: str
    model: str


class Endpoint(NamedTuple):
    """Where to ask.

    url: of its chat completions.
    model: the name of the model there.
    key: sent as a bearer token, or "" for none.
    timeout: seconds.
    """

    url: str
    model: str
    key: str = ""
    timeout: float = TIMEOUT


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: the key would be sent to another address."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


def is_url(text: str) -> bool:
    """Return whether a text is meant as a URL."""
    return "://" in text


def make_endpoint(url: str, key: str = "", timeout: float = TIMEOUT) -> Endpoint:
    """Return the endpoint of a URL: "http://localhost:8080/v1#MODEL".

    A URL without a path gets "/v1". Without a fragment, MODEL is "default", which servers of one
    model accept.
    Spaces and line breaks around the key are left out.
    Raises ValueError for what is no URL of a web server, and for a key that cannot be sent.
    """
    right = "write http://HOST:PORT/v1 or https://HOST/v1, and #MODEL after it if it has several"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{url!r:.100} is no URL ({error}): {right}") from None
    unfit = any(letter <= " " or letter > "~" for letter in url) or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or unfit:
        raise ValueError(f"{url!r:.100} is no URL of an endpoint: {right}")
    key = key.strip()
    if any(letter <= " " or letter > "~" for letter in key):  # the message must not show the key
        raise ValueError(
            "the key of the endpoint has spaces, line breaks or letters outside ASCII: set the "
            "environment variable OPENAI_API_KEY to the key alone"
        )
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith(PATH) else path + PATH
    whole = parts._replace(path=path, fragment="").geturl()
    return Endpoint(whole, parts.fragment or "default", key, timeout)


def ask_endpoint(endpoint: Endpoint, instruction: str, prompt: str, seed: int) -> Answer:
    """Ask for one prompt, with temperature 0.

    Raises OSError if the endpoint cannot be reached, fails or is too slow, and ValueError if what
    it sends is not of OpenAI's form.
    """
    body = {
        "model": endpoint.model,
        "messages": [
            {"role": "system", "content": instruction},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0,
        "seed": seed,
    }
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(endpoint.url, json.dumps(body).encode(), headers)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if _is_here(urlsplit(endpoint.url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    ends = time.monotonic() + endpoint.timeout
    slow = TimeoutError(f"no answer within {endpoint.timeout:g} seconds")
    try:
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=endpoint.timeout) as response:
            content = _read(response, ends, slow)
    except urllib.error.HTTPError as error:
        raise OSError(f"HTTP status {error.code}") from None
    except TimeoutError:
        raise slow from None
    except (urllib.error.URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise (slow if isinstance(reason, TimeoutError) else OSError(str(reason))) from None
    return read_answer(content, endpoint)


def _read(response, ends: float, slow: TimeoutError) -> bytes:
    """Return the content of a response. Raises `slow` if it is not there at the time `ends`."""
    content = b""
    while part := response.read1(2**16):
        content += part
        if len(content) > MAX_BYTES:
            raise OSError(f"an answer of more than {MAX_BYTES:,} bytes")
        if time.monotonic() > ends:
            raise slow
    return content


def read_answer(content: bytes, endpoint: Endpoint) -> Answer:
    """Return the answer in a response of OpenAI's form. Raises ValueError for other content."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("its answer is not JSON") from None
    try:
        text = told["choices"][0]["message"]["content"]
    except (TypeError, KeyError, IndexError):
        raise ValueError("its answer has no choices[0].message.content") from None
    if not isinstance(text, str):
        raise ValueError("its answer has no text")
    name = told.get("model")
    return Answer(text, name if isinstance(name, str) and name else endpoint.model)


def tidy(text: str) -> str:
    """Return an answer as a prompt: in one line, without quotation marks around it.

    Raises ValueError if it is empty, too long or no text.
    """
    line = " ".join(text.split()).strip("\"'“”‘’` ")
    if not line:
        raise ValueError("its answer is empty")
    if len(line) > MAX_LETTERS:
        raise ValueError(f"its answer has {len(line):,} letters: at most {MAX_LETTERS:,} are taken")
    if not line.isprintable():
        raise ValueError("its answer has letters that cannot be printed")
    return line


def expand(
    prompts: Sequence[str], ask: Callable[[str], Answer], model: str, seed: int, at_once: int = 1
) -> list[Expansion]:
    """Return each prompt as the language model rewrites it, or as it is, with the reason.

    ask: returns the answer to a prompt. It raises ValueError or OSError if there is none.
    model: its name where there is no answer.
    at_once: how many prompts are asked at the same time. Equal prompts are asked once.
    """

    def one(prompt: str) -> Expansion:
        try:
            if len(prompt) > MAX_LETTERS:
                raise ValueError(
                    f"the prompt has {len(prompt):,} letters: at most {MAX_LETTERS:,} are rewritten"
                )
            text, name = ask(prompt)
            return Expansion(tidy(text), prompt, name, seed)
        except (ValueError, OSError) as error:
            return Expansion(prompt, prompt, model, seed, str(error))

    distinct = list(dict.fromkeys(prompts))
    if at_once > 1:
        with ThreadPoolExecutor(at_once) as pool:
            found = dict(zip(distinct, pool.map(one, distinct), strict=True))
    else:
        found = {prompt: one(prompt) for prompt in distinct}
    return [found[prompt] for prompt in prompts]


def _is_here(host: str) -> bool:
    """Return whether a host is this machine, which is reached without a proxy."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
