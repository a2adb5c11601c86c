"""Published super-resolution networks, in an archive with random weights."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import cli
from t2i_jax.convert import esrgan_slim
from t2i_jax.convert.load import find_importer
from t2i_jax.download import npm
from tests import keras_layers


def convolution(name, source, side, inputs, channels):
    """(layer of model.json, {name: shape})."""
    about = {"name": name, "activation": "linear", "strides": [1, 1]}
    layer = {"class_name": "Conv2D", "config": about, "inbound_nodes": [[[source]]]}
    shapes = {f"{name}/kernel": [side, side, inputs, channels], f"{name}/bias": [channels]}
    return layer, shapes


def other(kind, name, sources, **about):
    nodes = [[[source] for source in sources]]
    return {"class_name": kind, "config": {"name": name, **about}, "inbound_nodes": nodes}, {}


def layers(scale):
    """The layers of a published network, as its model.json has them."""
    yield (
        {"class_name": "InputLayer", "config": {"name": "LR"}, "inbound_nodes": []},
        {},
    )
    yield convolution("F_m1", "LR", 3, 3, 64)
    yield convolution("F_0", "F_m1", 3, 64, 64)
    before = "F_0"
    for i in (1, 2):
        yield convolution(f"F_{i}_1", before, 3, 64, 4)
        yield other("Activation", f"relu_{i}", [f"F_{i}_1"], activation="relu")
        yield other("Concatenate", f"concat_{i}", [before, f"relu_{i}"])
        yield convolution(f"LFF_{i}", f"concat_{i}", 1, 68, 64)
        yield other("Add", f"LRL_{i}", [f"LFF_{i}", before])
        before = f"LRL_{i}"
    yield other("Concatenate", "LRLs", ["LRL_1", "LRL_2"])
    yield convolution("GFF_1", "LRLs", 1, 128, 64)
    yield convolution("GFF_2", "GFF_1", 3, 64, 64)
    yield other("Add", "FDF", ["GFF_2", "F_m1"])
    yield convolution("UPN1", "FDF", 5, 64, 64)
    yield other("Activation", "UPN1_Relu", ["UPN1"], activation="relu")
    yield convolution("UPN2", "UPN1_Relu", 3, 64, 32)
    yield other("Activation", "UPN2_Relu", ["UPN2"], activation="relu")
    yield convolution("UPN3", "UPN2_Relu", 3, 32, 3 * scale**2)
    yield other("UpSampling2D", "UPsample", ["UPN3"], size=[scale, scale], interpolation="nearest")
    yield convolution("SR", "UPsample", 3, 3 * scale**2, 3)


def random_model(scale):
    """(topology, arrays, files) of a network of the published shape. All numbers differ."""
    rng, arrays, described = np.random.default_rng(scale), {}, []
    for layer, shapes in layers(scale):
        described.append(layer)
        for name, shape in shapes.items():
            size = (0.5 * np.prod(shape[:-1])) ** -0.5 if len(shape) > 1 else 0.1
            arrays[name] = (size * rng.normal(size=shape)).astype(np.float32)
    topology = {"model_config": {"config": {"layers": described}}}
    weights = [{"name": n, "shape": [*a.shape], "dtype": "float32"} for n, a in arrays.items()]
    manifest = [{"paths": ["a.bin"], "weights": weights}]
    model = json.dumps({"modelTopology": topology, "weightsManifest": manifest}).encode()
    content = b"".join(array.tobytes() for array in arrays.values())
    return topology, arrays, {"model.json": model, "a.bin": content}


def write_archive(folder, scale, files):
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / npm.file_name(esrgan_slim.SPEC), "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/models/x{scale}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    return tmp_path / "downloads"


def test_upscale_is_what_the_published_layers_compute(downloads, tmp_path):
    topology, arrays, files = random_model(2)
    write_archive(downloads, 2, files)
    picture = np.random.default_rng(0).integers(0, 256, (16, 8, 3)).astype(np.uint8)
    expected = np.clip(keras_layers.run(topology, arrays, picture[None])[0], 0, 255)
    assert expected.std() > 20
    Image.fromarray(picture).save(tmp_path / "a.png")
    arguments = ["--workdir=esrgan_slim_x2", f"--image={tmp_path}/a.png", f"--out={tmp_path}/out"]
    cli.main(["upscale", *arguments])
    drawn = np.asarray(Image.open(tmp_path / "out" / "000.png"))
    assert drawn.shape == (32, 16, 3) and np.abs(drawn - expected).max() < 0.51
    (same,) = t2i_jax.load("esrgan_slim_x2").upscale(picture)
    np.testing.assert_array_equal(same, drawn)


def test_what_is_missing_or_damaged_is_named(downloads):
    assert find_importer("esrgan_slim_x5") is None
    with pytest.raises(FileNotFoundError, match=r"main\.py prepare --weights=esrgan_slim"):
        t2i_jax.load("esrgan_slim_x2")
    _, _, files = random_model(2)
    write_archive(downloads, 2, files)
    with pytest.raises(ValueError, match=r"no 'model\.json'"):
        t2i_jax.load("esrgan_slim_x4")
    with pytest.raises(ValueError, match="float32"):
        t2i_jax.load("esrgan_slim_x2", dtype="bfloat16")
    write_archive(downloads, 2, {**files, "a.bin": files["a.bin"][:-4]})
    with pytest.raises(ValueError, match="is damaged, or cannot be read here"):
        t2i_jax.load("esrgan_slim_x2")
    write_archive(downloads, 4, files)  # of another scale
    with pytest.raises(ValueError, match=r"SR/kernel is \[3, 3, 12, 3\]"):
        t2i_jax.load("esrgan_slim_x4")
