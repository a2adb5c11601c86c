"""The encoder of T5 against transformers' T5EncoderModel with the same random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from parity.published_weights import assert_close, assert_same_arrays, our_params, randomise
from t2i_jax.models.t5 import VARIANTS, T5Encoder, distance_buckets
from t2i_jax.weights import t5 as weights

TINY = dict(vocab_size=50, d_model=24, d_kv=12, d_ff=40, num_layers=3, num_heads=4)
TINY |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=10)
XXL = dict(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64)


@pytest.mark.parametrize("masked", [False, True])
def test_the_encoder(masked):
    config = T5Config(**TINY, feed_forward_proj="gated-gelu")
    model = randomise(T5EncoderModel(config))
    net, r = T5Encoder(**weights.fields(config.to_dict())), np.random.default_rng(0)
    tokens = r.integers(0, 50, (3, 30))
    mask = np.arange(30) < np.array([[30], [4], [17]]) if masked else None
    params = our_params(model, net, (tokens,), weights)
    with torch.no_grad():
        expected = model(
            torch.tensor(tokens), attention_mask=torch.tensor(mask) if masked else None
        ).last_hidden_state
    found = jax.jit(net.apply)({"params": params}, tokens, mask)
    if masked:
        found, expected = found * mask[..., None], expected * torch.tensor(mask)[..., None]
    assert_close(found, expected, f"T5{', masked' if masked else ''}")


@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 10), (64, 300)])
def test_groups_of_distances(buckets, far):
    position = torch.arange(700)
    expected = T5Attention._relative_position_bucket(
        position[None, :] - position[:, None], num_buckets=buckets, max_distance=far
    )
    np.testing.assert_array_equal(distance_buckets(700, buckets, far), expected)


def test_the_size_of_t5_xxl():
    """The text encoder of Stable Diffusion 3 and FLUX.1."""
    config = T5Config(**XXL, feed_forward_proj="gated-gelu")
    with torch.device("meta"):
        model = T5EncoderModel(config)
    net = T5Encoder(**weights.fields(config.to_dict()))
    assert net == T5Encoder(**VARIANTS["v1.1-XXL"])
    assert_same_arrays(model, net, (jnp.zeros((1, 2), jnp.int32),), weights)
    assert sum(value.numel() for value in model.parameters()) == 4_762_310_656
