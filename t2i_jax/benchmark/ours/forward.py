"""One call of the U-Net of Stable Diffusion, or of a part of it, with random weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.benchmark import reference
from t2i_jax.benchmark.ours.train import make_product, random_weights
from t2i_jax.benchmark.rows import Row
from t2i_jax.benchmark.side import Side
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.text import TextCondition
from t2i_jax.core.trees import moved_to_device
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.models import sd_unet
from t2i_jax.models.variants import fields_of
from t2i_jax.weights import sd_unet as weights
from t2i_jax.weights.published import Published, write_arrays
from t2i_jax.weights.stored import write_file

WORDS, TIMESTEP = 77, 500
MIDDLE, OURS = "mid_block.attentions.0", "middle_0_transformer"  # the transformer in the middle


class Network(NamedTuple):
    """A network, and how it is called.

    inputs: its arguments.
    told: {name: array}: the same, as the published network takes them, [B, C, H, W].
    published: (path) -> the place of a parameter in the published network.
    """

    net: nn.Module
    inputs: tuple
    told: dict[str, Any]
    published: Callable


def prepare(row: Row, folder, argument: str) -> Side:
    """Return the side of one call, and write its reference to `folder`. argument: unused."""
    del argument
    keep_compiled_programs()
    network, params = write_reference(row.config(), folder)
    inputs = jax.device_put(network.inputs)
    call = jax.jit(network.net.apply)
    info = {
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "flops": count_flops(network.net.apply, params, *inputs),
        "pictures": 1,
    }
    return Side(lambda: jax.block_until_ready(call(params, *inputs)), make_product(), info)


def write_reference(config: Mapping[str, Any], folder) -> tuple[Network, Any]:
    """Write random weights, inputs and the output for them; return (network, variables).

    config: of `experiments.published_unet`.
    """
    unet = sd_unet.UNet2DConditionModel(**fields_of(config["model"], sd_unet.VARIANTS))
    make = {"": _whole, MIDDLE: _middle}[config["part"]]
    network = make(unet, config["side"])
    shapes = jax.eval_shape(network.net.init, jax.random.key(0), *network.inputs)
    params = moved_to_device(random_weights(shapes))
    write_file(folder / reference.WEIGHTS, write_arrays(params["params"], network.published))
    output: Any = jax.jit(network.net.apply)(params, *network.inputs)
    about = {"unet": weights.config_json(unet), "part": config["part"]}
    reference.save(folder, about, {"inputs": network.told, "output": _theirs(output)})
    return network, params


def _whole(unet: sd_unet.UNet2DConditionModel, side: int) -> Network:
    """Return the whole U-Net, for one example. side: of its latents."""
    x, words = _normal(0, side, side, unet.in_channels), _normal(1, WORDS, unet.text_width)
    t = np.full(1, (TIMESTEP + 1) / sd_unet.TIMESTEPS, np.float32)
    text = TextCondition(jnp.asarray(words), jnp.zeros((1, 1)), jnp.ones((1, WORDS), bool))
    timestep = np.full(1, TIMESTEP)
    told = {"sample": _theirs(x), "timestep": timestep, "encoder_hidden_states": words}
    return Network(unet, (x, t, text), told, weights.published(unet))


def _middle(unet: sd_unet.UNet2DConditionModel, side: int) -> Network:
    """Return the transformer in the middle of the U-Net alone. side: of its cells."""
    net = sd_unet.Transformer(unet.middle_depth, unet.heads[-1], unet.dtype)
    x, words = _normal(0, side, side, unet.channels[-1]), _normal(1, WORDS, unet.text_width)
    whole = weights.published(unet)

    def published(path):
        name, layout = whole((OURS, *path))
        return Published(name.removeprefix(f"{MIDDLE}."), layout)

    told = {"hidden_states": _theirs(x), "encoder_hidden_states": words}
    return Network(net, (x, words), told, published)


def _normal(seed: int, *shape: int) -> np.ndarray:
    """Return normal numbers float32 [1, *shape]."""
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def _theirs(x) -> np.ndarray:
    """Return [B, C, H, W] of [B, H, W, C]."""
    return np.moveaxis(np.asarray(x), -1, 1)
