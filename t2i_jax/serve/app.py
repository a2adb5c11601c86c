"""The server: a page to draw on, and the same model over HTTP in OpenAI's form."""

import contextlib
import hmac
import ipaddress
import signal
from collections.abc import Sequence

import gradio as gr
import uvicorn
from fastapi import FastAPI

from t2i_jax.pipeline import Pipeline, load
from t2i_jax.serve.images_api import make_router
from t2i_jax.serve.page import make_page
from t2i_jax.serve.worker import Worker

MAX_UPLOAD = "20mb"
SMALL = 128  # pixels a side: such pictures are enlarged with sharp pixels
PIXELS = "img { image-rendering: pixelated; }"


class StoppableServer(uvicorn.Server):
    """A server that SIGINT and SIGTERM end without a trace."""

    @contextlib.contextmanager
    def capture_signals(self):
        """Let the signals end the block; uvicorn would raise them again after it."""
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, self.handle_exit)
        yield


def make_app(pipe: Pipeline, name: str, password: str = "") -> FastAPI:
    """Return the application that serves a model.

    name: of the model.
    password: of the page, with any user name, and the key of the API; "" for none.
    """
    worker, app = Worker(pipe), FastAPI(title=name, docs_url=None, redoc_url=None)
    app.include_router(make_router(worker, name, password))

    def is_right(user: str, given: str) -> bool:
        del user
        return hmac.compare_digest(given.encode(), password.encode())

    return gr.mount_gradio_app(
        app,
        make_page(worker, name),
        "/",
        auth=is_right if password else None,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        css=PIXELS if pipe.config.data.resolution < SMALL else None,
    )


def serve(
    workdir: str,
    checkpoint: str | int,
    overrides: Sequence[str],
    host: str,
    port: int,
    password: str,
) -> None:
    """Serve the model of a run until Ctrl-C. Arguments: see `load` and `make_app`.

    host: the address to listen at: "127.0.0.1" is this machine alone.
    """
    pipe = load(workdir, checkpoint, overrides)
    app = make_app(pipe, workdir.rstrip("/").rpartition("/")[2], password)
    if not password and not is_loopback(host):
        print(f"warning: everybody who reaches {host} can draw: set --password")
    print(f"a page to draw on: http://{host}:{port}; OpenAI's form: http://{host}:{port}/v1")
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=2,  # seconds: an open page would keep it for ever
    )
    StoppableServer(config).run()


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
