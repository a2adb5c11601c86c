"""LoRA in safetensors files: as diffusers and peft name its arrays, and as kohya's scripts do.

    diffusers   unet.mid_block.attentions.0.proj_in.lora_A.weight, ...lora_B.weight
    kohya       lora_unet_mid_block_attentions_0_proj_in.lora_down.weight, ...lora_up.weight, .alpha

The arrays of a layer are those of a layer to `rank` channels and of one from there. Their product
is added to the weight, alpha / rank times; alpha is the rank where a file does not say. Files of
DoRA also have the magnitude of each output: lora_magnitude_vector, or dora_scale.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from t2i_jax.weights.published import LAYOUTS, Path, Published

# Ends of names: those that diffusers and kohya write, and two that diffusers wrote before.
DOWN = ("lora_A.weight", "lora_down.weight", "lora.down.weight", "lora_linear_layer.down.weight")
UP = ("lora_B.weight", "lora_up.weight", "lora.up.weight", "lora_linear_layer.up.weight")
MAGNITUDE = ("lora_magnitude_vector.weight", "lora_magnitude_vector", "dora_scale")
PARTS = {"down": DOWN, "up": UP, "alpha": ("alpha",), "magnitude": MAGNITUDE}


class Layer(NamedTuple):
    """A layer that a LoRA can change.

    path: of its kernel, in the tree of all networks.
    shape: of its kernel, as we order it.
    layout: of published.LAYOUTS.
    names: what files call it: diffusers' name first, then kohya's; further ones are read.
    """

    path: Path
    shape: tuple[int, ...]
    layout: str
    names: tuple[str, ...]


def layers_of(
    shapes: Any,
    published: Callable[[Path], Published],
    path: Path,
    names: Callable[[str], tuple[str, ...]],
) -> list[Layer]:
    """Return the layers of one network.

    shapes: its parameters. published: where they are in its published file.
    path: to the network, in the tree of all.
    names: (published name of a layer) -> `Layer.names`.
    """
    found = []
    for keys, shape in jax.tree_util.tree_leaves_with_path(shapes):
        own = tuple(str(entry.key) for entry in keys)
        name, layout = published(own)
        if layout != "same":
            layer = names(name.removesuffix(".weight"))
            found.append(Layer((*path, *own), tuple(shape.shape), layout, layer))
    return found


def read(arrays: Mapping[str, np.ndarray], layers: list[Layer], source: str) -> dict[str, Any]:
    """Return the adapter in a file: nested dicts with {"down", "up"} in the place of kernels.

    The factor alpha / rank is in `up`, so that its scale is 1 (families/lora.py).
    layers: of all networks. source: the file, for messages.
    Raises ValueError, listing them, for arrays that belong to no layer, that are missing, or that
    have another shape.
    """
    named = {name: layer for layer in layers for name in layer.names}
    found: dict[Layer, dict[str, str]] = {}
    unused = []
    for name in arrays:
        layer, part = _split(name)
        if layer in named:
            found.setdefault(named[layer], {})[part] = name
        else:
            unused.append(name)
    if unused or not found:
        raise ValueError(
            f"{source} is no LoRA of this model: {_some(unused)} belong to none of its layers"
        )
    factors: dict[Path, np.ndarray] = {}
    for layer, parts in found.items():
        if not {"down", "up"} <= parts.keys():
            raise ValueError(f"{source} is damaged: {_some([*parts.values()])} have no counterpart")
        down, up = (np.asarray(arrays[parts[part]], np.float32) for part in ("down", "up"))
        for name, array, right in zip(
            (parts["down"], parts["up"]), (down, up), _shapes(layer, len(down)), strict=True
        ):
            if array.shape != right:
                raise ValueError(
                    f"{source} is of another model: {name} is {[*array.shape]}, not {[*right]}"
                )
        scale = float(arrays[parts["alpha"]]) / len(down) if "alpha" in parts else 1.0
        factors[*layer.path, "down"] = LAYOUTS[layer.layout].to_ours(down)
        factors[*layer.path, "up"] = LAYOUTS[_up_layout(layer)].to_ours(up) * np.float32(scale)
        if "magnitude" in parts:
            name, outputs = parts["magnitude"], layer.shape[-1]
            magnitude = np.asarray(arrays[name], np.float32)
            of_inputs = name.endswith("dora_scale") and len(magnitude) != outputs
            if magnitude.size != outputs or of_inputs:
                raise ValueError(
                    f"{source} is of another model: {name} is {[*magnitude.shape]}, not one number "
                    f"for each of {outputs} outputs"
                )
            factors[*layer.path, "magnitude"] = magnitude.reshape(outputs)
    return unflatten_dict(factors)


def write(adapter: Any, scale: float, layers: list[Layer], kohya: bool) -> dict[str, np.ndarray]:
    """Return the arrays of a file: the inverse of `read`. `scale` is multiplied into one factor.

    Raises ValueError, listing them, for kernels that are of no layer.
    """
    by_path = {layer.path: layer for layer in layers}
    factors: Any = flatten_dict(adapter)
    paths = sorted({path[:-1] for path in factors})
    if strange := [path for path in paths if path not in by_path]:
        raise ValueError(
            f"a LoRA file has no place for {_some(['/'.join(path) for path in strange])}"
        )
    arrays, style = {}, int(kohya)
    for path in paths:
        layer = by_path[path]
        down, up = (np.asarray(factors[*path, part]) for part in ("down", "up"))
        name, down = layer.names[style], LAYOUTS[layer.layout].to_theirs(down)
        up = LAYOUTS[_up_layout(layer)].to_theirs(up * np.float32(scale))
        arrays[f"{name}.{DOWN[style]}"] = np.ascontiguousarray(down)
        arrays[f"{name}.{UP[style]}"] = np.ascontiguousarray(up)
        if kohya:
            arrays[f"{name}.alpha"] = np.array(len(down), np.float32)
    return arrays


def _up_layout(layer: Layer) -> str:
    return "linear" if layer.layout == "linear" else "pointwise"


def _shapes(layer: Layer, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of both arrays of a layer in a file."""
    *inputs, outputs = layer.shape
    down, up = (np.broadcast_to(False, shape) for shape in ((*inputs, rank), (rank, outputs)))
    theirs = LAYOUTS[layer.layout].to_theirs(down), LAYOUTS[_up_layout(layer)].to_theirs(up)
    return theirs[0].shape, theirs[1].shape


def _split(name: str) -> tuple[str, str]:
    """Return (layer, part of PARTS) of the name of an array; ("", "") if it has no such end."""
    for part, ends in PARTS.items():
        for end in ends:
            if name.endswith(f".{end}"):
                return name.removesuffix(f".{end}"), part
    return "", ""


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{len(names)} arrays ({shown}{', ...' if len(names) > 5 else ''})"
