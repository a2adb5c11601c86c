"""Keras layers of a TensorFlow.js model, computed by NumPy as its model.json describes them."""

import numpy as np


def run(topology, arrays, x):
    """Return what the model makes of x [B, H, W, C]; arrays: by published name."""
    found = {}
    for layer in topology["model_config"]["config"]["layers"]:
        name, about = layer["config"]["name"], layer["config"]
        inputs = [found[node[0]] for nodes in layer["inbound_nodes"] for node in nodes]
        found[name] = LAYERS[layer["class_name"]](name, about, inputs or [x], arrays)
    return found[name]


def conv(name, about, inputs, arrays):
    assert about["activation"] == "linear" and about["strides"] == [1, 1]
    kernel = arrays[f"{name}/kernel"].astype(np.float64)
    r = kernel.shape[0] // 2
    padded = np.pad(inputs[0], ((0, 0), (r, r), (r, r), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], (1, 2))
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel, optimize=True) + arrays[f"{name}/bias"]


def activation(name, about, inputs, arrays):
    assert about["activation"] == "relu"
    return np.maximum(inputs[0], 0)


def larger(name, about, inputs, arrays):
    assert about["interpolation"] == "nearest"
    return inputs[0].repeat(about["size"][0], 1).repeat(about["size"][1], 2)


LAYERS = {
    "InputLayer": lambda name, about, inputs, arrays: np.asarray(inputs[0], np.float64),
    "Conv2D": conv,
    "Activation": activation,
    "Concatenate": lambda name, about, inputs, arrays: np.concatenate(inputs, -1),
    "Add": lambda name, about, inputs, arrays: sum(inputs),
    "UpSampling2D": larger,
}
