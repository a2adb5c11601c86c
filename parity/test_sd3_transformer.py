"""The transformer of Stable Diffusion 3 against diffusers, with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel

from parity.published_weights import assert_close, assert_same_arrays, our_params, randomise
from t2i_jax.core.text import TextCondition
from t2i_jax.models.sd3_transformer import VARIANTS, SD3Transformer
from t2i_jax.weights import sd3_transformer as weights

TINY = dict(
    sample_size=8,
    in_channels=3,
    out_channels=3,
    num_layers=3,
    attention_head_dim=10,
    num_attention_heads=4,
    joint_attention_dim=14,
    caption_projection_dim=40,
    pooled_projection_dim=9,
    pos_embed_max_size=12,
)
PUBLISHED = {
    "SD3-medium": dict(
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=192,
    ),
    "SD3.5-medium": dict(
        num_layers=24,
        num_attention_heads=24,
        caption_projection_dim=1536,
        pos_embed_max_size=384,
        qk_norm="rms_norm",
        dual_attention_layers=tuple(range(13)),
    ),
    "SD3.5-large": dict(
        num_layers=38,
        num_attention_heads=38,
        caption_projection_dim=2432,
        pos_embed_max_size=192,
        qk_norm="rms_norm",
    ),
}
COUNTS = {
    "SD3-medium": 2_028_328_000,
    "SD3.5-medium": 2_243_171_520,
    "SD3.5-large": 8_056_627_520,
}


@pytest.mark.parametrize("size", [(8, 8), (6, 22)], ids=["training size", "wide"])
@pytest.mark.parametrize(
    ("qk_norm", "dual"),
    [(None, ()), ("rms_norm", ()), ("rms_norm", (0, 1)), (None, (2,))],
    ids=["plain", "qk_norm", "qk_norm, dual", "dual"],
)
def test_the_transformer(qk_norm, dual, size):
    model = SD3Transformer2DModel(**TINY, qk_norm=qk_norm, dual_attention_layers=dual)
    table = model.pos_embed.pos_embed.numpy().copy()
    randomise(model)
    net, r = SD3Transformer(**weights.fields(model.config)), np.random.default_rng(0)
    x, t = r.normal(size=(3, *size, 3)).astype(np.float32), np.float32([0.03, 0.5, 0.98])
    words, pooled = r.normal(size=(3, 5, 14)), r.normal(size=(3, 9))
    text = TextCondition(np.float32(words), np.float32(pooled), np.ones((3, 5), bool))
    made = jax.jit(lambda: net.init(jax.random.key(0), x, t, text)["params"]["positions"])()
    np.testing.assert_allclose(made, table, atol=1e-6)

    model.pos_embed.pos_embed += 0.1 * torch.randn(model.pos_embed.pos_embed.shape)
    params = our_params(model, net, (x, t, text), weights)
    with torch.no_grad():
        expected = model(
            torch.tensor(x).permute(0, 3, 1, 2),
            torch.tensor(text.sequence),
            torch.tensor(text.pooled),
            1000 * torch.tensor(t),
        ).sample.permute(0, 2, 3, 1)
    found = jax.jit(net.apply)({"params": params}, x, t, text)
    assert_close(found, expected, f"SD3, qk_norm {qk_norm}, dual {dual}, {size[0]} x {size[1]}")


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_sizes(variant):
    with torch.device("meta"):
        model = SD3Transformer2DModel(**PUBLISHED[variant])
    net = SD3Transformer(**weights.fields(model.config))
    assert net == SD3Transformer(**VARIANTS[variant])
    text = TextCondition(jnp.zeros((1, 2, 4096)), jnp.zeros((1, 2048)), jnp.ones((1, 2), bool))
    assert_same_arrays(model, net, (jnp.zeros((1, 4, 4, 16)), jnp.zeros(1), text), weights)
    assert sum(value.numel() for value in model.parameters()) == COUNTS[variant]
