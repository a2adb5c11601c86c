"""An endpoint of OpenAI's form, started here: what it is sent, and what is made of its answers."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from t2i_jax.text.expansion import Answer, Expansion, ask_endpoint, expand, make_endpoint, tidy


@contextmanager
def serve(answer):
    """Start a server; `answer` gets its handler and the request's content. Yields (URL, requests).

    A request is (path, headers, content).
    """
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, dict(self.headers), content))
            answer(self, content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def send(handler, content, status=200, **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def say(text):
    """An answer of OpenAI's form."""
    return {"model": "tiny", "choices": [{"message": {"role": "assistant", "content": text}}]}


def test_what_is_sent_and_what_comes_back():
    with serve(lambda handler, _: send(handler, say('  "a large\n red circle" '))) as (url, sent):
        endpoint = make_endpoint(f"{url}#small-model", key="secret")
        answer = ask_endpoint(endpoint, "Be brief.", "a big red ball", 7)
    path, headers, content = sent[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert content == {
        "model": "small-model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "a big red ball"},
        ],
        "temperature": 0,
        "seed": 7,
    }
    assert answer.model == "tiny" and tidy(answer.text) == "a large red circle"


@pytest.mark.parametrize("key", ["sk-secret\r\n", " sk-secret"])
def test_a_key_of_a_file_with_line_breaks_is_sent_without_them(key):
    with serve(lambda handler, _: send(handler, say("x"))) as (url, sent):
        ask_endpoint(make_endpoint(url, key=key), "", "x", 0)
    assert sent[0][1]["Authorization"] == "Bearer sk-secret"


@pytest.mark.parametrize("key", ["sk-se\ncret", "sk-se cret", "sk-secrét"])
def test_a_wrong_key_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as error:
        make_endpoint("http://localhost", key=key)
    assert "sk-" not in str(error.value)


def test_without_a_key_none_is_sent():
    with serve(lambda handler, _: send(handler, say("x"))) as (url, sent):
        ask_endpoint(make_endpoint(url), "", "x", 0)
    assert "Authorization" not in sent[0][1] and sent[0][2]["model"] == "default"


def test_prompts_are_asked_at_once_and_equal_ones_once():
    """Each answer waits until all three prompts have arrived."""
    all_here = threading.Barrier(3, timeout=10)

    def answer(handler, content):
        all_here.wait()
        send(handler, say(content["messages"][1]["content"].upper()))

    with serve(answer) as (url, sent):
        ask = asker(make_endpoint(url))
        found = expand(["a", "b", "a", "c"], ask, url, 3, at_once=3)
    assert [each.prompt for each in found] == ["A", "B", "A", "C"] and len(sent) == 3
    assert found[0] == Expansion("A", "a", "tiny", 3)
    told = {"prompt": "a", "model": "tiny", "seed": 3}
    assert found[0].note() == {"prompt": "A", "expansion": told}


def asker(endpoint):
    return lambda prompt: ask_endpoint(endpoint, "", prompt, 0)


NONSENSE = {
    "no JSON": (b"<html>", "not JSON"),
    "deep JSON": (b"[" * 100_000, "not JSON"),
    "a number": (b"3", "choices"),
    "no choices": ({"error": {"message": "no"}}, "choices"),
    "empty choices": ({"choices": []}, "choices"),
    "no text": (say(None), "no text"),
    "an empty text": (say(" \n"), "empty"),
    "10,000 letters": (say("star " * 2_000), "9,999 letters"),
    "NUL": (say("a\0b"), "cannot be printed"),
    "half a letter": (say("a \ud800"), "cannot be printed"),
    "too many bytes": (b" " * (2**20 + 1), "bytes"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_leaves_the_prompt_as_it_is(name):
    content, why = NONSENSE[name]
    with serve(lambda handler, _: send(handler, content)) as (url, _):
        (found,) = expand(["a cat"], asker(make_endpoint(url)), "them", 0)
    assert (found.prompt, found.model) == ("a cat", "them") and why in found.error
    assert found.note()["expansion"]["error"] == found.error


@pytest.mark.parametrize("status", [307, 401, 500])
def test_another_status_leaves_the_prompt_as_it_is(status):
    """A redirect is refused too: it would take the key to another address."""

    def answer(handler, _):
        send(handler, say("a dog"), status, Location=handler.path + "/other")

    with serve(answer) as (url, sent):
        (found,) = expand(["a cat"], asker(make_endpoint(url)), url, 0)
    assert found.prompt == "a cat" and str(status) in found.error and len(sent) == 1


@pytest.mark.parametrize("drips", [False, True])
def test_a_slow_endpoint_is_not_waited_for(drips):
    """Neither one that is silent, nor one that sends a byte now and then."""
    ended = threading.Event()

    def answer(handler, _):
        if not drips:
            ended.wait(20)
            return
        handler.send_response(200)
        handler.end_headers()
        while not ended.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    with serve(answer) as (url, _):
        began = time.monotonic()
        (found,) = expand(["a cat"], asker(make_endpoint(url, timeout=0.3)), url, 0)
        took = time.monotonic() - began
        ended.set()
    assert found.prompt == "a cat" and found.error == "no answer within 0.3 seconds" and took < 5


def test_an_endpoint_that_is_down():
    with serve(None) as (url, _):
        pass
    (found,) = expand(["a cat"], asker(make_endpoint(url)), url, 0)
    assert found.prompt == "a cat" and "refused" in found.error


def test_a_prompt_of_10000_letters_is_not_sent():
    def ask(prompt):
        raise AssertionError

    long = "a" * 10_000
    (found,) = expand([long], ask, "them", 0)
    assert found.prompt == long and "10,000 letters" in found.error
    assert expand([], ask, "them", 0) == [] == expand([], ask, "them", 0, at_once=4)


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "ftp://host/v1",
        "file:///etc/passwd",
        "http://host:port",
        "http://host:0",
        "http://host:99999",
        "http://[::1",
        "http://ho st/v1",
        "http://name:password@host/v1",
        "http://host/v1\r\nX: y",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="is no URL"):
        make_endpoint(url)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("http://localhost:8080", "http://localhost:8080/v1/chat/completions"),
        ("http://localhost:8080/", "http://localhost:8080/v1/chat/completions"),
        ("https://a.b/v1/", "https://a.b/v1/chat/completions"),
        ("https://a.b/api?x=1#m", "https://a.b/api/chat/completions?x=1"),
        ("https://a.b/v2/chat/completions", "https://a.b/v2/chat/completions"),
    ],
)
def test_the_path_is_completed(url, whole):
    assert make_endpoint(url).url == whole


def test_bugs_are_not_hidden():
    def ask(prompt):
        return Answer(prompt.missing, "x")

    with pytest.raises(AttributeError):
        expand(["a cat"], ask, "them", 0)
