"""Published super-resolution: our networks agree with the layers that their files describe."""

import json

import numpy as np
import pytest

import t2i_jax
from t2i_jax.convert import esrgan_slim
from t2i_jax.core.files import data_dir
from t2i_jax.core.pictures import to_unit
from t2i_jax.download import npm
from t2i_jax.families.superresolution import make_network
from t2i_jax.weights import tensorflow_js
from tests import keras_layers


@pytest.fixture(scope="module")
def archive():
    esrgan_slim.prepare()
    return data_dir() / "downloads" / npm.file_name(esrgan_slim.SPEC)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_the_published_networks_are_their_own_layers(archive, scale):
    folder = f"package/models/x{scale}/"
    files = {name.removeprefix(folder): found for name, found in npm.files(archive, folder)}
    topology = json.loads(files["model.json"])["modelTopology"]
    arrays = tensorflow_js.read(files, folder)
    levels = np.random.default_rng(0).integers(0, 256, (2, 12, 15, 3))
    expected = keras_layers.run(topology, arrays, levels)
    pipe = t2i_jax.load(f"esrgan_slim_x{scale}")
    net = make_network(pipe.config.model, scale)
    found = net.apply({"params": pipe.variables.params["model"]}, to_unit(levels))
    error = np.abs(np.asarray(found) - (expected / 127.5 - 1)).max()
    print(f"x{scale}: largest difference {error:.1e}, of pictures in [-1, 1]")
    assert found.shape == (2, 12 * scale, 15 * scale, 3) and error < 1e-4
