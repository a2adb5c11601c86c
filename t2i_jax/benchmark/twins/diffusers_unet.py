"""The U-Net of diffusers, or a part of it, with weights that are handed to it."""

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file


def make(config, file):
    """Return the network with the parameters in a safetensors file, which stay in the file.

    config: {"unet": a config.json, "part": the name of a module, or "" for all of it}.
    Raises ValueError if parameters differ in name or shape.
    """
    with torch.device("meta"):  # no numbers yet: the whole of XL would take 10 GB
        whole = UNet2DConditionModel.from_config(config["unet"])
    net = whole.get_submodule(config["part"])
    try:
        net.load_state_dict(load_file(file), strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"diffusers has other parameters: {error}") from error
    return net.eval().requires_grad_(False)
