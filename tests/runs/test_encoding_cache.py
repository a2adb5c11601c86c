"""Pictures are encoded once; the cache is complete, and of these weights and pictures."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.config import base
from t2i_jax.core.family import Encoding
from t2i_jax.core.source import Source
from t2i_jax.data.loader import make_batch
from t2i_jax.runs import encoding_cache

COUNT = 150  # more than two batches, and not a whole number of them
SLOW = """
import time, numpy as np
from tests.runs.test_encoding_cache import run, source

def read(index, plain=source().read):
    if index[0] > 0:
        print("the first batch is written", flush=True)
        time.sleep(600)
    return plain(index)

run(source()._replace(read=read))
"""


def source(salt=""):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3)).astype(np.uint8)
    return Source([""] * COUNT, lambda index: images[index], f"pictures{salt}")


def encode(frozen, image):
    """A stand-in for a first stage: sums of pictures times a frozen number."""
    return {"codes": frozen["first_stage"]["w"] * image.astype(jnp.int32).sum((1, 2))}


def run(of, w=3, compute=encode, network=(), **augment):
    config = base()
    config.update({"family": "toy", "data": {"resolution": 4}})
    config.augment.update(augment)
    frozen = {
        "first_stage": {"w": np.int32(w)},
        "null_text": {"x": np.zeros(1)},
        "text": {"y": np.zeros(1)},
    }
    encoding = compute and Encoding(compute, ("first_stage",), dict(network))
    return encoding_cache.cached_columns(config, SimpleNamespace(encoding=encoding), frozen, of)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    return tmp_path / "encodings"


def test_the_same_weights_in_another_network_are_encoded_again(folder):
    for normalize in (True, False, True):
        run(source(), network={"quantizer": {"normalize": normalize}})
    assert len(list(folder.iterdir())) == 2


def test_the_cache_holds_what_would_be_computed_and_is_filled_once():
    found = run(source())
    want = 3 * source().read(np.arange(COUNT)).astype(np.int32).sum((1, 2))
    np.testing.assert_array_equal(found["codes"], want)

    def refuse(index):
        raise AssertionError("read again")

    again = run(source()._replace(read=refuse))
    index = np.array([149, 0, 149])
    # No picture is read for the batch either.
    batch = make_batch(source()._replace(read=refuse), again, index)
    np.testing.assert_array_equal(batch["codes"], want[index])
    assert batch["image"] is None and batch["index"].tolist() == index.tolist()


def test_other_weights_or_pictures_have_columns_of_their_own(folder):
    ones, threes = run(source(), w=1)["codes"], run(source(), w=3)["codes"]
    np.testing.assert_array_equal(3 * np.asarray(ones), threes)
    run(source("others"))
    assert len(list(folder.iterdir())) == 3


def test_a_folder_of_other_weights_is_refused(folder):
    run(source())
    about = next(folder.iterdir()) / "about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "weights": "0" * 16}))
    with pytest.raises(ValueError, match="computed of other weights: remove it"):
        run(source())


def test_killed_while_writing_then_complete(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout.readline() == "the first batch is written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = list(folder.iterdir())
    # It was at work, and nothing has the final name.
    assert len(left) == 1 and left[0].name.startswith("incomplete-")
    want = 3 * source().read(np.arange(COUNT)).astype(np.int32).sum((1, 2))
    np.testing.assert_array_equal(run(source())["codes"], want)


def test_what_cannot_be_cached_is_refused(folder):
    with pytest.raises(ValueError, match="toy computes nothing of pictures"):
        run(source(), compute=None)
    with pytest.raises(ValueError, match=r"config\.augment changes them"):
        run(source(), flip=0.5)
    assert not folder.exists()
