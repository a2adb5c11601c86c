"""The autoencoder against diffusers' AutoencoderKL with the same random weights.

Every moment and every pixel are compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from t2i_jax.models.quantize import kl
from t2i_jax.models.vqgan import VARIANTS, Decoder, Encoder

FIELDS = dict(width=32, multipliers=(1, 2, 2), blocks=1)
LATENT = 4


def theirs(project):
    torch.manual_seed(0)
    widths = [FIELDS["width"] * m for m in FIELDS["multipliers"]]
    net = AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=FIELDS["blocks"],
        latent_channels=LATENT,
        down_block_types=["DownEncoderBlock2D"] * len(widths),
        up_block_types=["UpDecoderBlock2D"] * len(widths),
        use_quant_conv=project,
        use_post_quant_conv=project,
    ).eval()
    with torch.no_grad():
        for weights in net.parameters():  # norms and biases too, which start at 1 and 0
            weights.add_(0.05 * torch.randn_like(weights))
    return net


def renamed(path):
    """Return the name at diffusers.

    ("encoder", "down_0_1", "conv_in", "kernel") is "encoder.down_blocks.0.resnets.1.conv1.weight".
    """
    net, module, *rest = path
    levels = len(FIELDS["multipliers"])
    kind, *places = module.split("_")
    places = [place for place in places if place.isdigit()]
    if module == "project":
        parts = [{"encoder": "quant_conv", "decoder": "post_quant_conv"}[net]]
    elif module in ("conv_in", "conv_out"):
        parts = [net, module]
    elif module == "norm_out":
        parts = [net, "conv_norm_out"]
    elif kind == "middle":
        parts = [
            net,
            "mid_block",
            *(["attentions", "0"] if module.endswith("attention") else ["resnets", *places]),
        ]
    else:
        place = int(places[0]) if kind == "down" else levels - 1 - int(places[0])
        inner = ["resnets", places[1]] if len(places) == 2 else [f"{kind}samplers", "0", "conv"]
        parts = [net, f"{kind}_blocks", str(place), *inner]
    names = {
        "norm_in": "norm1",
        "conv_in": "conv1",
        "norm_out": "norm2",
        "conv_out": "conv2",
        "skip": "conv_shortcut",
    }
    names |= {
        "attention": "",
        "norm": "group_norm",
        "query": "to_q",
        "key": "to_k",
        "value": "to_v",
        "out": "to_out.0",
    }
    leaf = {"kernel": "weight", "scale": "weight", "bias": "bias"}[rest[-1]]
    return ".".join(filter(None, [*parts, *(names[name] for name in rest[:-1]), leaf]))


def converted(net, shapes):
    """Return their weights in our tree. Each must fit, and be used exactly once."""
    state = {name: weights.numpy() for name, weights in net.state_dict().items()}

    def take(path, shape):
        weights = state.pop(renamed([entry.key for entry in path]))
        if weights.ndim == 4:
            weights = weights.transpose(2, 3, 1, 0)
        elif weights.ndim == 2:
            weights = weights.T
        assert weights.size == np.prod(shape.shape)
        return jnp.asarray(weights.reshape(shape.shape))

    params = jax.tree_util.tree_map_with_path(take, shapes)
    assert not state, sorted(state)
    return params


@pytest.mark.parametrize("project", [True, False])
def test_the_autoencoder_of_latent_diffusion(project):
    net = theirs(project)
    encoder, decoder = (
        Encoder(2 * LATENT, project=project, **FIELDS),
        Decoder(project=project, **FIELDS),
    )
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 24, 3)).astype(np.float32)
    z = np.random.default_rng(1).normal(size=(2, 8, 6, LATENT)).astype(np.float32)
    modules = {"encoder": (encoder, x), "decoder": (decoder, z)}
    shapes = {
        name: jax.eval_shape(m.init, jax.random.key(0), a)["params"]
        for name, (m, a) in modules.items()
    }
    params = converted(net, shapes)
    with torch.no_grad():
        posterior = net.encode(torch.tensor(x).permute(0, 3, 1, 2)).latent_dist
        pictures = (
            net.decode(torch.tensor(z).permute(0, 3, 1, 2)).sample.permute(0, 2, 3, 1).numpy()
        )
    moments = jax.jit(encoder.apply)({"params": params["encoder"]}, x)
    expected = posterior.parameters.permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.1 and pictures.std() > 0.1
    np.testing.assert_allclose(moments, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        jax.jit(decoder.apply)({"params": params["decoder"]}, z), pictures, rtol=1e-4, atol=1e-5
    )
    found = kl(LATENT).apply({}, {}, moments, jax.random.split(jax.random.key(0), 2))
    nats = posterior.kl().numpy() / z[0].size  # theirs is a sum
    np.testing.assert_allclose(found.loss, nats, rtol=1e-4)


def test_the_size_of_stable_diffusions_autoencoder():
    """Our table of sizes describes what diffusers builds."""
    widths = [VARIANTS["SD"]["width"] * m for m in VARIANTS["SD"]["multipliers"]]
    with torch.device("meta"):
        blocks = {
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        }
        net = AutoencoderKL(
            block_out_channels=widths,
            layers_per_block=VARIANTS["SD"]["blocks"],
            latent_channels=4,
            **blocks,
        )
    assert sum(weights.numel() for weights in net.parameters()) == 83_653_863
