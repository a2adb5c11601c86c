"""Names of blocks that all convolutional networks of diffusers share, and their configs."""

from collections.abc import Mapping
from typing import Any

from t2i_jax.weights.published import Path, Published

# The layers of a residual block.
RESIDUAL = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "time": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "skip": "conv_shortcut",
}
# The linear layers of attention.
ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}


def block_name(ours: str, levels: int) -> str:
    """Return the published name of a block.

    ours: "down_1" (halves the sides), "down_1_0" (a residual block), "down_1_0_NAME" (attention of
        any name), the same with "up", or "middle_0" and "middle_0_NAME". In theirs, the levels on
        the way up are counted from the coarsest.
    """
    kind, *words = ours.split("_")
    numbers = [int(word) for word in words if word.isdigit()]
    part = "resnets" if words[-1].isdigit() else "attentions"
    if kind == "middle":
        return f"mid_block.{part}.{numbers[0]}"
    level = numbers[0] if kind == "down" else levels - 1 - numbers[0]
    inner = f"{part}.{numbers[1]}" if len(numbers) == 2 else f"{kind}samplers.0.conv"
    return f"{kind}_blocks.{level}.{inner}"


def residual_layer(block: str, layer: str, leaf: str) -> Published:
    """Return where a parameter of a residual block is: `leaf` of `layer` of the block so named."""
    layout = "linear" if layer == "time" else "pointwise" if layer == "skip" else "conv"
    return parameter(f"{block}.{RESIDUAL[layer]}", leaf, layout)


def parameter(name: str, leaf: str, layout: str) -> Published:
    """Return where a kernel (of that layout), a scale or a bias of the layer `name` is."""
    if leaf == "kernel":
        return Published(f"{name}.weight", layout)
    return Published(f"{name}.{'weight' if leaf == 'scale' else leaf}", "same")


def is_block(path: Path) -> bool:
    """Return whether a path leads into a block, not to a layer of its own."""
    return path[0].split("_")[0] in ("down", "middle", "up")


def check_config(config: Mapping, supported: Mapping[str, Any], network: str) -> None:
    """Raise ValueError, naming it, for a field of a config.json with an unsupported value.

    supported: the only value that each of these fields may have; it is also the default.
    """
    for name, wanted in supported.items():
        found = config.get(name, wanted)
        found = tuple(found) if isinstance(found, list) else found
        if found != wanted:
            raise ValueError(
                f"config.json of {network} has {name} = {found!r}; supported is {wanted!r}"
            )
