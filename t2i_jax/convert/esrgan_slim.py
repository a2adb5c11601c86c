"""Published super-resolution: "ESRGAN slim" of UpscalerJS (MIT licence), trained on photographs.

Its networks for scales 2, 3, 4 and 8 are in an npm package, and their names here are
"esrgan_slim_x2" and so on. They are residual dense networks (models/residual_dense.py), which take
levels from 0 to 255. Fetch them by `python main.py prepare --weights=esrgan_slim`.
"""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.convert.diffusers_parts import run_config
from t2i_jax.core.files import data_dir
from t2i_jax.core.importer import Imported, Importer, only_converted
from t2i_jax.download import npm
from t2i_jax.models.residual_dense import ResidualDense
from t2i_jax.text.encoder import make_encoder
from t2i_jax.weights import tensorflow_js
from t2i_jax.weights.published import Published, read_params

SPEC = "@upscalerjs/esrgan-slim@1.0.0"
PACKAGES = {
    SPEC: "sha512-DXtwn5SE71+pZKluN/hGeLaZv6ZylyFQYSvMqU08kKCEA5Y9Q1cIIk4EvPTPZw8VqGi2C6F02c8OjhtI"
    "d4BK2w=="
}
NAME = re.compile(r"esrgan_slim_x([2348])")
# Our layers outside the blocks, and theirs.
LAYERS = {
    "shallow_0": "F_m1",
    "shallow_1": "F_0",
    "fusion_0": "GFF_1",
    "fusion_1": "GFF_2",
    "up_0": "UPN1",
    "up_1": "UPN2",
    "up_2": "UPN3",
    "out": "SR",
}


def prepare(archives: str | Path | None = None) -> None:
    """Fetch the package (4 MB) to the data folder. Nothing of it is run.

    archives: a folder to copy it from instead. Raises what `npm.fetch` raises.
    """
    npm.fetch(PACKAGES, data_dir() / "downloads", archives)


def importer(path) -> Importer | None:
    """Return the importer of one of these networks, or None if `path` is not its name."""
    if not NAME.fullmatch(str(path)) or Path(path).exists():
        return None
    return only_converted("a published super-resolution network", Path(path), read)


def read(name: Path, dtype: str = "float32") -> Imported:
    """Read a network.

    name: such as "esrgan_slim_x2".
    Raises FileNotFoundError before `prepare`, and ValueError for another dtype than float32.
    """
    found = NAME.fullmatch(str(name))
    if dtype != "float32" or found is None:
        raise ValueError(f"dtype is {dtype!r}: {name} computes in float32")
    archive, scale = data_dir() / "downloads" / npm.file_name(SPEC), int(found[1])
    if not archive.is_file():
        raise FileNotFoundError(
            f"{archive} is missing: fetch it with python main.py prepare --weights=esrgan_slim"
        )
    config = run_config(
        "superresolution",
        text={"encoder": "none", "length": 1},
        model={"network": "residual_dense"},
        superresolution={"scale": scale},
        data={"name": "folder", "resolution": 16 * scale},
    )
    folder = f"package/models/x{scale}/"
    files = {each.removeprefix(folder): content for each, content in npm.files(archive, folder)}
    params = read_network(tensorflow_js.read(files, f"{folder} of {archive}"), scale)
    return Imported(config, {"model": params}, {}, make_encoder(config.text).make_tokenizer([]))


def read_network(arrays: tensorflow_js.NamedArrays, scale: int) -> Any:
    """Return the parameters of ResidualDense(scale) from arrays by their published names."""
    init = ResidualDense(scale).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    return read_params(arrays, shapes, published, arrays.source)


def published(path: tuple[str, ...]) -> Published:
    """Return where a parameter is; kernels are stored as [H, W, inputs, outputs], as here."""
    layer, field = path
    if block := re.fullmatch(r"block_(\d+)_(?:dense_(\d+)|fusion)", layer):
        number = int(block[1]) + 1
        theirs = f"LFF_{number}" if block[2] is None else f"F_{number}_{int(block[2]) + 1}"
    else:
        theirs = LAYERS[layer]
    return Published(f"{theirs}/{field}", "same")
