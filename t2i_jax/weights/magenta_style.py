"""Magenta's networks of arbitrary style transfer (arXiv 1705.06830) in published ONNX files.

The files hold integers of 8 bits with a scale for each channel. Here, the networks compute with
floats in between, where the published program rounds to 8 bits after each operation.
"""

import re

from t2i_jax.weights.published import Published

BLOCK = re.compile(r"block_(\d+)_(expand|project|depthwise)(_bias)?")
STYLED = re.compile(r"(block|expand)_(\d+)(?:_([01]))?(?:_(scale|shift))?")
STORED = "_dequant"  # the end of the names of arrays that were stored as integers


def predictor_names(path: tuple[str, ...]) -> Published:
    """Return where a parameter of models/style_predictor.py is."""
    layer, field = path[0], path[-1]
    if match := BLOCK.fullmatch(layer):
        number, part, bias = match.groups()
        block = "MobilenetV2/expanded_conv" + (f"_{number}" if number != "0" else "")
        if part == "depthwise":
            name = "depthwise_bias" if bias else "depthwise_weights"
            return Published(f"{block}/depthwise/{name}{STORED}", "same" if bias else "conv")
        layer = f"{block}/{part}"
    else:
        theirs = {"stem": "MobilenetV2/Conv", "head": "MobilenetV2/Conv_1"}
        layer = theirs.get(layer, "mobilenet_conv/Conv")
    return _convolution(layer, field, "pointwise" if path[0] == "out" else "conv")


def transformer_names(path: tuple[str, ...]) -> Published:
    """Return where a parameter of models/style_transformer.py is."""
    layer, field = path
    if layer.startswith("contract_"):
        number = int(layer.removeprefix("contract_")) + 1
        return _convolution(f"transformer/contract/conv{number}", field, "conv")
    match = STYLED.fullmatch(layer)
    assert match, layer  # the network has no other layer
    kind, number, part, which = match.groups()
    if kind == "block":
        place = f"transformer/residual/residual{int(number) + 1}/conv{int(part) + 1}"
    else:
        place = f"transformer/expand/conv{int(number) + 1}/conv"
    if which:
        conv = "Conv_1" if which == "scale" else "Conv"
        return _convolution(f"style_params/{place}/StyleNorm/{conv}", field, "pointwise")
    return _convolution(place, field, "conv")


def ignored(name: str) -> bool:
    """Return whether an array is no parameter: a scale, a constant, or a bias before a norm."""
    return not name.endswith(STORED) or bool(
        re.fullmatch(r"transformer/(residual|expand)/.*(Conv2D_bias|add/y)_dequant", name)
    )


def _convolution(layer: str, field: str, layout: str) -> Published:
    if field == "bias":
        return Published(f"{layer}/Conv2D_bias{STORED}", "same")
    return Published(f"{layer}/weights{STORED}", layout)
