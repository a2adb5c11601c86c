"""Inception-v3 of the Frechet Inception Distance, as torch-fidelity and pytorch-fid publish it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# The name at torch-fidelity; at pytorch-fid it is pt_inception-2015-12-05-6726825d.pth.
FILE = "weights-inception-2015-12-05-6726825d.pth"


def from_published(arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the parameters of `t2i_jax.models.inception.Inception`.

    Each batch norm (epsilon 0.001, as in TF-Slim) is folded into its convolution, in float64. The
    bias of the last layer is left out.

    arrays: those of FILE by name (NAME.conv.weight, NAME.bn.*).

    Raises ValueError for another kind of Inception-v3.
    """
    classes = arrays["fc.weight"].shape[0]
    if classes != 1008:
        raise ValueError(
            f"these are weights for {classes} classes, and the Inception-v3 of FID has 1008: "
            "other weights, torchvision's among them, give other numbers. "
            f"Take {FILE}"
        )
    tree: dict = {"fc": {"kernel": arrays["fc.weight"].T}}
    convolutions = [key for key in arrays if key.endswith(".conv.weight")]
    for name in (key.removesuffix(".conv.weight") for key in convolutions):
        norm = {
            field: arrays[f"{name}.bn.{field}"].astype(np.float64)
            for field in ("weight", "bias", "running_mean", "running_var")
        }
        scale = norm["weight"] / np.sqrt(norm["running_var"] + 0.001)
        kernel = arrays[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        *block, layer = name.split(".")
        place = tree.setdefault(block[0], {}) if block else tree
        place[layer] = {"kernel": kernel, "bias": norm["bias"] - norm["running_mean"] * scale}
    return tree
