"""The U-Net of diffusers, or a part of it, with weights that are handed to it."""

import torch
from diffusers import UNet2DConditionModel


def make(config, params):
    """Return the network with these parameters, {published name: tensor}.

    config: {"unet": a config.json, "part": the name of a module, or "" for all of it}.
    Raises ValueError if parameters differ in name or shape.
    """
    with torch.device("meta"):  # no numbers yet: the whole of XL would take 10 GB
        whole = UNet2DConditionModel.from_config(config["unet"])
    net = whole.get_submodule(config["part"])
    try:
        net.load_state_dict(params, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"diffusers has other parameters: {error}") from error
    return net.eval().requires_grad_(False)
