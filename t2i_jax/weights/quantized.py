"""Weights in 8 or 4 bits: large float32 arrays as whole numbers and scales, and widened again.

Symmetric, without calibration: w is stored as round(w / scale), where scale is the largest |w| of a
channel, or of a group of its inputs, over the largest whole number (arXiv 2004.09602, section 3).
"""

import math
from typing import Any

import ml_dtypes
import numpy as np
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict
from jaxtyping import Float, Int8, UInt8

KINDS = ("int8", "int4")
LARGEST = {"int8": 127, "int4": 7}
GROUP = 32  # inputs that share a scale, of 4 bits
MIN_GROUP = 8  # an array whose inputs divide only into smaller groups gets 8 bits
MIN_SIZE = 4096  # smaller arrays stay as they are
# What is quantised, by the last part of its name. Norms, biases and codebooks are not among them.
KERNELS = ("kernel",)  # [..., inputs, channels]
TABLES = ("embed", "embedding", "head", "words", "basis")  # [channels, inputs], as a row a token


def quantize_tree(tree: Any, kind: str) -> dict:
    """Return a nested dict of arrays with each large weight as {kind: whole numbers, "scale"}.

    tree: of NumPy or JAX arrays; what is quantised becomes NumPy arrays.
    kind: of KINDS. Raises ValueError, naming them, for another.
    """
    if kind not in KINDS:
        raise ValueError(f"there are no weights in {kind!r}: there are {' and '.join(KINDS)}")
    nodes: Any = flatten_dict(tree, keep_empty_nodes=True)
    for path, node in nodes.items():
        if _is_weight(path[-1], node):
            nodes[path] = quantize(np.asarray(node), kind, path[-1] in KERNELS)
    return unflatten_dict(nodes)


def widen_tree(tree: Any) -> dict:
    """Return what `quantize_tree` was given, rounded: each of its arrays in float32 again."""
    nodes: Any = flatten_dict(
        tree, keep_empty_nodes=True, is_leaf=lambda path, node: _is_quantized(node)
    )
    for path, node in nodes.items():
        if _is_quantized(node):
            nodes[path] = widen(node, path[-1] in KERNELS)
    return unflatten_dict(nodes)


def quantize(x: Float[np.ndarray, "..."], kind: str, is_kernel: bool) -> dict[str, np.ndarray]:
    """Return {kind: whole numbers, "scale"} of an array.

    8 bits: int8 of the shape of x, and a float32 scale for each channel, with axes of length 1 for
    the others. 4 bits: uint8 with two numbers each, of which the axis of inputs is half as long,
    and a bfloat16 scale for each group of at most GROUP inputs; 8 bits if there are no such groups.
    is_kernel: see KERNELS and TABLES.
    """
    axis = _input_axis(x.ndim, is_kernel)
    size = math.gcd(x.shape[axis], GROUP)
    if kind == "int8" or size < MIN_GROUP:
        channel = x.ndim - 1 if is_kernel else 0
        others = tuple(i for i in range(x.ndim) if i != channel)
        scale = _scale(np.abs(x).max(others, keepdims=True), "int8").astype(np.float32)
        return {"int8": _rounded(x / scale, "int8"), "scale": scale}
    groups = _split(x, axis, size)
    largest = np.abs(groups).max(axis + 1, keepdims=True)
    scale = _scale(largest, "int4").astype(ml_dtypes.bfloat16)
    numbers = _rounded(groups / scale.astype(np.float32), "int4").reshape(x.shape)
    return {"int4": pack(numbers, axis), "scale": scale.squeeze(axis + 1)}


def widen(stored: dict[str, np.ndarray], is_kernel: bool) -> Float[np.ndarray, "..."]:
    """Return whole numbers times their scales, float32, of what `quantize` returned."""
    scale = np.asarray(stored["scale"]).astype(np.float32)
    if "int8" in stored:
        return stored["int8"].astype(np.float32) * scale
    axis = _input_axis(scale.ndim, is_kernel)
    numbers = unpack(stored["int4"], axis)
    groups = _split(numbers, axis, numbers.shape[axis] // scale.shape[axis])
    return (groups * np.expand_dims(scale, axis + 1)).reshape(numbers.shape)


def pack(numbers: Int8[np.ndarray, "..."], axis: int) -> UInt8[np.ndarray, "..."]:
    """Return whole numbers from -8 to 7 with two neighbours along `axis` in one byte."""
    pairs = _split(numbers.view(np.uint8) & 15, axis, 2)
    low, high = (pairs.take(i, axis + 1) for i in range(2))
    return low | (high << 4)


def unpack(packed: UInt8[np.ndarray, "..."], axis: int) -> Int8[np.ndarray, "..."]:
    """Return what `pack` was given."""
    halves = np.stack([packed & 15, packed >> 4], axis + 1)
    shape = (*packed.shape[:axis], 2 * packed.shape[axis], *packed.shape[axis + 1 :])
    return ((halves.astype(np.int8) ^ 8) - 8).reshape(shape)  # 15 is -1


def _is_weight(name: str, node: Any) -> bool:
    if name not in KERNELS + TABLES or node is empty_node:
        return False
    return node.dtype == np.float32 and node.ndim > 1 and node.size >= MIN_SIZE


def _is_quantized(node: Any) -> bool:
    return isinstance(node, dict) and any(node.keys() == {kind, "scale"} for kind in KINDS)


def _input_axis(ndim: int, is_kernel: bool) -> int:
    return ndim - 2 if is_kernel else ndim - 1


def _split(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """x with `axis` as two axes: of groups, and of `size` numbers in each."""
    return x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])


def _scale(largest: np.ndarray, kind: str) -> np.ndarray:
    return np.where(largest > 0, largest, 1) / LARGEST[kind]


def _rounded(x: np.ndarray, kind: str) -> np.ndarray:
    return np.clip(np.rint(x), -LARGEST[kind], LARGEST[kind]).astype(np.int8)
