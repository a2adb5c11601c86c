"""The page to draw on and the HTTP interface, on a real server with tiny models.

pip install --no-deps -r requirements-extras.lock
"""

import base64
import concurrent.futures
import io
import json
import threading
import time
import urllib.error
import urllib.request

import gradio_client
import numpy as np
import openai
import pytest
import uvicorn
from gradio_client import handle_file
from PIL import Image

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.core.fields import Field
from t2i_jax.serve.app import is_loopback, make_app
from t2i_jax.serve.controls import make_control
from t2i_jax.serve.page import split_editor
from t2i_jax.serve.worker import Busy, Worker
from tests.conftest import ROOT, free_port, write_untrained_run

PROMPT = "a red circle"
PASSWORD = "sésame"


class Server:
    """The application on a free port of this machine."""

    def __init__(self, pipe, password=""):
        port = free_port()
        app = make_app(pipe, "tiny", password)
        self.url = f"http://127.0.0.1:{port}"
        self.server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.05)

    def close(self):
        self.server.should_exit = True
        self.thread.join(timeout=30)


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    """{name: pipeline} of untrained models: one that captions too, and one that inpaints."""
    made = {}
    for name, spec, overrides in (
        ("both", "shapes.py:smoke", ["captioning=0.5"]),
        ("diffusion", "shapes_diffusion.py:smoke", []),
    ):
        folder = tmp_path_factory.mktemp(name)
        write_untrained_run(configs.load(f"{ROOT}/configs/{spec}", overrides), folder)
        made[name] = pipeline.load(folder)
    return made


@pytest.fixture(scope="module", params=["both", "diffusion"])
def server(request, pipes):
    running = Server(pipes[request.param])
    running.pipe = pipes[request.param]
    yield running
    running.close()


@pytest.fixture
def client(server):
    return gradio_client.Client(server.url, verbose=False)


def defaults(pipe, ability):
    """Return the settings as the page sends them, in its order."""
    return list(pipe.family.settings[ability].values())


def same(path, image) -> bool:
    with Image.open(path) as drawn:
        return np.array_equal(np.asarray(drawn), np.asarray(image))


def picture(tmp_path, name="x.png"):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path / name


def test_the_page_draws_what_the_pipeline_draws_and_recovers_its_settings(server, client):
    values = defaults(server.pipe, "sample")
    gallery, said = client.predict(PROMPT, 7, 2, *values, api_name="/draw")
    expected = server.pipe(PROMPT, num=2, seed=7).images
    assert len(gallery) == 2 and not said
    assert all(same(g["image"], e) for g, e in zip(gallery, expected, strict=True))
    prompt, seed, *found, note = client.predict(
        handle_file(gallery[1]["image"]), api_name="/recover"
    )
    assert (prompt, seed, found) == (PROMPT, 7, values)
    assert note == "its settings are set: press Draw; it was picture 2 of its call"


def test_ten_requests_at_once_are_all_answered(server, client):
    values = defaults(server.pipe, "sample")
    jobs = [client.submit(PROMPT, i, 1, *values, api_name="/draw") for i in range(10)]
    for i, job in enumerate(jobs):
        (drawn,), _ = job.result(timeout=120)
        assert same(drawn["image"], server.pipe(PROMPT, seed=i).images[0])


def test_what_is_wrong_is_said_on_the_page(server, client, tmp_path):
    values = defaults(server.pipe, "sample")
    for request, said in (
        (("x" * 10_000, 0, 1, *values), "2,?000"),
        ((PROMPT, 0, 99, *values), "16"),
        ((PROMPT, -1, 1, *values), "0"),
    ):
        with pytest.raises(Exception, match=said):
            client.predict(*request, api_name="/draw")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(Exception, match="not a readable picture"):
        client.predict(handle_file(broken), api_name="/recover")
    with pytest.raises(Exception, match="no t2i_jax metadata"):
        client.predict(handle_file(picture(tmp_path)), api_name="/recover")


def test_only_uploaded_files_are_read(server, client):
    """A path of the server, in place of an upload."""
    for path in ("/etc/passwd", "../../etc/passwd"):
        with pytest.raises(Exception):  # noqa: B017 (the client's own kinds)
            client.predict(
                {"path": path, "meta": {"_type": "gradio.FileData"}}, api_name="/recover"
            )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{server.url}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)


def test_captions_and_edits(pipes, tmp_path):
    image = picture(tmp_path)
    for name, pipe in pipes.items():
        running = Server(pipe)
        client = gradio_client.Client(running.url, verbose=False)
        if name == "both":
            assert client.predict(handle_file(image), api_name="/caption") == pipe.caption(image)[0]
        else:
            values = defaults(pipe, "edit")
            (drawn,), _ = client.predict(
                handle_file(image), PROMPT, 3, 1, *values, api_name="/edit"
            )
            assert same(drawn["image"], pipe.edit(PROMPT, image, seed=3).images[0])
        running.close()


def test_what_is_painted_is_the_mask():
    background = Image.new("RGBA", (8, 6), "white")
    layer = np.zeros((6, 8, 4), np.uint8)
    layer[1:3, 4:7] = [255, 0, 255, 200]
    drawn = {"background": background, "layers": [Image.fromarray(layer)], "composite": None}
    image, mask = split_editor(drawn)
    assert image.mode == "RGB" and image.size == (8, 6)
    np.testing.assert_array_equal(np.asarray(mask) == 255, layer[..., 3] > 0)
    with pytest.raises(ValueError, match="nothing is painted"):
        split_editor({**drawn, "layers": [Image.new("RGBA", (8, 6))]})
    for none in (None, {"background": None, "layers": []}):
        with pytest.raises(ValueError, match="no picture to inpaint"):
            split_editor(none)


def test_a_client_of_openai_draws(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none")
    answer = client.images.generate(model="tiny", prompt=PROMPT, n=2, extra_body={"seed": 7})
    expected = server.pipe(PROMPT, num=2, seed=7).images
    for given, image in zip(answer.data, expected, strict=True):
        assert same(io.BytesIO(base64.b64decode(given.b64_json)), image)
    linked = client.images.generate(prompt=PROMPT, size="32x32", response_format="url")
    assert linked.data[0].url.startswith("data:image/png;base64,")
    assert [model.id for model in client.models.list()] == ["tiny"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "prompt is missing"),
        ({"prompt": 3}, "prompt is missing"),
        ({"prompt": "x" * 10_000}, "10,000 characters: at most 2,000"),
        ({"prompt": PROMPT, "n": 17}, "1 to 16"),
        ({"prompt": PROMPT, "n": "many"}, "n is 'many'"),
        ({"prompt": PROMPT, "size": "1024x1024"}, "this model draws 32x32 alone"),
        ({"prompt": PROMPT, "size": "big"}, "width x height"),
        ({"prompt": PROMPT, "seed": -1}, "seed"),
        ({"prompt": PROMPT, "response_format": "jpeg"}, "b64_json or url"),
        ({"prompt": PROMPT, "guidanse": 2.0}, "guidance"),
        ({"prompt": PROMPT, "guidance": "strong"}, "guidance"),
    ],
)
def test_wrong_requests_are_refused(server, body, said):
    code, answer = post(server.url, json.dumps(body).encode())
    assert code == 400 and said in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "status"), [(b"[1]", 400), (b"{", 400), (b"\xff", 400), (b" " * 2**20 + b"{}", 413)]
)
def test_what_is_no_request_is_refused(server, content, status):
    code, answer = post(server.url, content)
    assert code == status and answer["error"]["message"]


def post(url, content, key=""):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/v1/images/generations", content, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_password_keeps_others_out(pipes):
    running = Server(pipes["both"], PASSWORD)
    body = json.dumps({"prompt": PROMPT}).encode()
    key = PASSWORD.encode().decode("latin-1")  # as HTTP sends it
    assert post(running.url, body)[0] == 401 and post(running.url, body, "other")[0] == 401
    assert post(running.url, body, key)[0] == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{running.url}/config")
    assert refused.value.code == 401
    with pytest.raises(Exception):  # noqa: B017
        gradio_client.Client(running.url, verbose=False, auth=("me", "other"))
    client = gradio_client.Client(running.url, verbose=False, auth=("me", PASSWORD))
    values = defaults(pipes["both"], "sample")
    assert len(client.predict(PROMPT, 0, 1, *values, api_name="/draw")[0]) == 1
    running.close()


def test_too_many_requests_are_turned_away():
    worker, go, started = Worker(None, max_waiting=3), threading.Event(), threading.Event()

    def wait(_):
        started.set()
        return go.wait(10)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(worker.run, wait) for _ in range(3)]
        started.wait(10)
        while worker._places._value:
            time.sleep(0.01)
        with pytest.raises(Busy, match="3 requests wait already"):
            worker.run(wait)
        go.set()
        assert [each.result() for each in waiting] == [(True, [])] * 3
    assert worker.run(lambda _: 5) == (5, [])


def test_controls_have_the_limits_of_their_fields():
    slider = make_control("strength", Field(0.6, "how much", 0.0, 1.0))
    assert (slider.minimum, slider.maximum, slider.value) == (0.0, 1.0, 0.6)
    steps = make_control("steps", Field(25, "steps", 1, 10_000))
    assert (steps.minimum, steps.maximum, steps.precision) == (1, 10_000, 0)
    sampler = make_control("sampler", Field("heun", "method", choices=("euler", "heun")))
    assert [value for _, value in sampler.choices] == ["euler", "heun"]
    assert make_control("negative_prompt", Field("", "words")).value == ""
    assert make_control("flag", Field(True, "")).value is True


def test_which_addresses_are_of_this_machine():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.org", "::")))
