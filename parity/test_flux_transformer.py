"""The transformer of FLUX.1 against diffusers, with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from parity.published_weights import assert_close, assert_same_arrays, our_params, randomise
from t2i_jax.core.text import TextCondition
from t2i_jax.models.flux_transformer import VARIANTS, FluxTransformer, pack, positions, unpack
from t2i_jax.weights import flux_transformer as weights

TINY = dict(
    in_channels=12,
    num_layers=2,
    num_single_layers=3,
    attention_head_dim=16,
    num_attention_heads=3,
    joint_attention_dim=14,
    pooled_projection_dim=9,
    axes_dims_rope=(4, 4, 8),
)
COUNTS = {"FLUX.1-dev": 11_901_408_320, "FLUX.1-schnell": 11_891_178_560}


@pytest.mark.parametrize("size", [(8, 8), (6, 22)], ids=["square", "wide"])
@pytest.mark.parametrize("guidance", [False, True])
def test_the_transformer(guidance, size):
    model = randomise(FluxTransformer2DModel(**TINY, guidance_embeds=guidance))
    net, r = FluxTransformer(**weights.fields(model.config)), np.random.default_rng(0)
    x, t = r.normal(size=(3, *size, 3)).astype(np.float32), np.float32([0.03, 0.5, 0.98])
    words, pooled = r.normal(size=(3, 5, 14)), r.normal(size=(3, 9))
    strength = np.float32([[1.0], [3.5], [7.0]]) if guidance else None
    text = TextCondition(np.float32(words), np.float32(pooled), np.ones((3, 5), bool), strength)
    params = our_params(model, net, (x, t, text), weights)

    packed = FluxPipeline._pack_latents(torch.tensor(x).permute(0, 3, 1, 2), 3, 3, *size)
    ids = FluxPipeline._prepare_latent_image_ids(3, size[0] // 2, size[1] // 2, "cpu", torch.float)
    np.testing.assert_array_equal(pack(x), packed)
    np.testing.assert_array_equal(unpack(pack(x), size[0] // 2, size[1] // 2), x)
    np.testing.assert_array_equal(positions(5, size[0] // 2, size[1] // 2)[5:], ids)
    with torch.no_grad():
        expected = model(
            packed,
            torch.tensor(text.sequence),
            torch.tensor(text.pooled),
            torch.tensor(t),
            img_ids=ids,
            txt_ids=torch.zeros(5, 3),
            guidance=torch.tensor(strength[:, 0]) if guidance else None,
        ).sample
    # In pixels of 8 x 8 for a latent, as the pipeline counts.
    expected = FluxPipeline._unpack_latents(expected, 8 * size[0], 8 * size[1], 8)
    found = jax.jit(net.apply)({"params": params}, x, t, text)
    what = f"FLUX, {'with' if guidance else 'no'} guidance, {size[0]} x {size[1]}"
    assert_close(found, expected.permute(0, 2, 3, 1), what)


@pytest.mark.parametrize("variant", COUNTS)
def test_published_sizes(variant):
    with torch.device("meta"):
        model = FluxTransformer2DModel(guidance_embeds=variant == "FLUX.1-dev")
    net = FluxTransformer(**weights.fields(model.config))
    assert net == FluxTransformer(**VARIANTS[variant])
    strength = jnp.ones((1, 1)) if net.guidance else None
    text = TextCondition(
        jnp.zeros((1, 2, 4096)), jnp.zeros((1, 768)), jnp.ones((1, 2), bool), strength
    )
    assert_same_arrays(model, net, (jnp.zeros((1, 4, 4, 16)), jnp.zeros(1), text), weights)
    assert sum(value.numel() for value in model.parameters()) == COUNTS[variant]
