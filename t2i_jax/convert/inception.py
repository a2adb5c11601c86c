"""Inception-v3 of the Frechet Inception Distance, from the PyTorch file that torch-fidelity and pytorch-fid publish."""

from collections.abc import Mapping
from typing import Any

import numpy as np

FILE = "weights-inception-2015-12-05-6726825d.pth"  # pytorch-fid names it pt_inception-2015-12-05-6726825d.pth


def from_published(arrays: Mapping[str, np.ndarray]) -> Any:
    """The parameters of `t2i_jax.models.inception.Inception` from the arrays of FILE by name (NAME.conv.weight, NAME.bn.*).

    Each batch norm (epsilon 0.001, as in TF-Slim) is folded into its convolution, in float64. The bias of the last layer is
    left out. Raises ValueError for Inception-v3 of another kind.
    """
    classes = arrays["fc.weight"].shape[0]
    if classes != 1008:
        raise ValueError(
            f"these are weights for {classes} classes, and the Inception-v3 of FID has 1008: other weights, torchvision's"
            f" among them, give other numbers. Take {FILE}"
        )
    tree: dict = {"fc": {"kernel": arrays["fc.weight"].T}}
    for name in [key.removesuffix(".conv.weight") for key in arrays if key.endswith(".conv.weight")]:
        norm = {k: arrays[f"{name}.bn.{k}"].astype(np.float64) for k in ("weight", "bias", "running_mean", "running_var")}
        scale = norm["weight"] / np.sqrt(norm["running_var"] + 0.001)
        kernel = arrays[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale
        *block, layer = name.split(".")
        place = tree.setdefault(block[0], {}) if block else tree
        place[layer] = {"kernel": kernel, "bias": norm["bias"] - norm["running_mean"] * scale}
    return tree
