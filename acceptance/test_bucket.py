"""Runs in a bucket of Google Cloud Storage: an emulator of it, on this machine, in memory.

pip install --no-deps -r requirements-extras.lock
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, free_port

RUN = "gs://bucket/runs/tiny"


@pytest.fixture(scope="module")
def emulator():
    """The environment of processes that are to use the emulator in place of Google's servers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, f"{ROOT}/acceptance/bucket_emulator.py", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/storage/v1/b/bucket").close()
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    yield os.environ | {
        "STORAGE_EMULATOR_HOST": url,  # of gcsfs and of google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": url,
        "NO_GCE_CHECK": "true",
        "JAX_PLATFORMS": "cpu",
    }
    process.kill()
    process.wait()


def start(environment, *arguments):
    command = [sys.executable, f"{ROOT}/main.py", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def call(environment, *arguments):
    process = start(environment, *arguments)
    output, _ = process.communicate(timeout=400)
    return process.returncode, output


def train(environment, workdir, *more):
    config = f"--config={ROOT}/configs/shapes.py:smoke"
    often = ("--config.train.steps=8", "--config.train.save_every=2", "--config.train.log_every=1")
    return start(environment, "train", config, f"--workdir={workdir}", *often, *more)


def finish(process):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def read(environment, name):
    """Return the bytes of a file of the run in the bucket."""
    path = urllib.parse.quote(f"runs/tiny/{name}", safe="")
    url = f"{environment['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o/{path}?alt=media"
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def draw(environment, workdir, out):
    asked = ("--prompt=a red circle", "--num=2", f"--out={out}")
    code, output = call(environment, "sample", f"--workdir={workdir}", *asked)
    assert code == 0, output
    return [np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))]


def test_a_run_in_a_bucket_is_that_of_a_folder_and_survives_a_signal(emulator, tmp_path):
    local = tmp_path / "local"
    finish(train(emulator, local))
    process = train(emulator, RUN)
    for line in process.stdout:
        if line.startswith("step 3 "):
            process.send_signal(signal.SIGTERM)
            break
    output = process.stdout.read()
    assert process.wait(timeout=100) == 128 + signal.SIGTERM, output
    stopped = len(read(emulator, "metrics.jsonl").splitlines())
    finish(train(emulator, RUN))
    for name in ("metrics.jsonl", "run.json", "tokenizer.json"):
        assert read(emulator, name) == (local / name).read_bytes(), name
    assert stopped < len(read(emulator, "metrics.jsonl").splitlines())
    report = "evaluation/test/metrics.json"
    there, here = json.loads(read(emulator, report)), json.loads((local / report).read_text())
    assert there["alignment"] == here["alignment"]
    ours = draw(emulator, RUN, tmp_path / "ours")
    theirs = draw(emulator, local, tmp_path / "theirs")
    assert len(ours) == 2 and all(map(np.array_equal, ours, theirs))


def test_two_hosts_without_a_common_disk(emulator, tmp_path):
    where = "gs://bucket/runs/two"
    common = (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    running = [train(emulator, where, *common, f"--process_id={i}") for i in range(2)]
    for process in running:
        finish(process)
    assert draw(emulator, where, tmp_path / "drawn")


def test_what_cannot_be_used(emulator, tmp_path):
    for where, named in (
        ("gs://nowhere/runs/a", "nowhere"),
        ("s3://bucket/a", "Google Cloud Storage"),
        ("gs://bucket/runs/none", "not a run folder"),
    ):
        code, output = call(emulator, "sample", f"--workdir={where}", "--prompt=a red circle")
        assert code and named in output and "Traceback" not in output
