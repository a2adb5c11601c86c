"""The decoder of words: what influences what, and cached decoding against full recomputation.

Its transformer fits that of a model that draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.word_decoder import WordDecoder

WORDS, LENGTH, GRID, CHANNELS = 11, 5, (3, 4), 6


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    picture = jnp.asarray(rng.normal(size=(4, 12, CHANNELS)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, WORDS, (4, LENGTH)), jnp.int32)
    decoder = WordDecoder(WORDS, LENGTH, GRID, width=16, depth=1, heads=2)
    params = jax.jit(decoder.init)(jax.random.key(0), picture, tokens)
    # The output starts at zero; here it has an influence.
    params["params"]["head"] = jnp.asarray(0.1 * rng.normal(size=(WORDS, 16)), jnp.float32)
    return decoder, params, picture, tokens, jax.jit(decoder.apply)


def moved(a, b):
    """Return where logits differ: bool [B, length]."""
    return np.abs(a - b).max(-1) > 1e-4


def test_a_word_depends_on_earlier_words_and_on_the_whole_picture(model):
    _, params, picture, tokens, apply = model
    logits = apply(params, picture, tokens)
    assert logits.shape == (4, LENGTH, WORDS) and logits.dtype == jnp.float32
    for place in range(LENGTH):
        other = apply(params, picture, tokens.at[:, place].set((tokens[:, place] + 1) % WORDS))
        np.testing.assert_array_equal(
            moved(other, logits), np.broadcast_to(np.arange(LENGTH) > place, (4, LENGTH))
        )
    for place in (0, 5, 11):
        assert moved(apply(params, picture.at[:, place].add(1.0), tokens), logits).all()
    reversed_places = apply(params, picture[:, ::-1], tokens)
    assert moved(reversed_places, logits).all()  # the place of a vector has an influence
    alone = apply(params, picture.at[0].add(1.0), tokens)
    np.testing.assert_allclose(alone[1:], logits[1:], atol=1e-6)


def test_cached_logits_agree_with_full_recomputation(model):
    decoder, params, picture, tokens, apply = model
    full = apply(params, picture, tokens)
    carry = jax.jit(lambda params: decoder.apply(params, picture, method="prefill"))(params)
    step = jax.jit(
        lambda carry, before, i: decoder.apply(params, carry, before, i, method="decode_step")
    )
    for i in range(LENGTH):
        logits, carry = step(carry, jnp.where(jnp.arange(LENGTH) < i, tokens, 0), i)
        np.testing.assert_allclose(logits, full[:, i], atol=1e-5)


def test_the_trunk_has_the_shapes_of_a_model_that_draws(model):
    _, params, *_ = model
    text = TextCondition(jnp.zeros((1, 3, 8)), jnp.zeros((1, 8)), jnp.ones((1, 3), bool))
    draws = PrefixDecoder(codes=7, grid=GRID, width=16, depth=1, heads=2)
    lent = jax.eval_shape(
        draws.init, jax.random.key(1), text, jnp.zeros((1, 12), jnp.int32), jnp.zeros((7, 6))
    )
    shapes = [
        jax.tree.map(jnp.shape, trunk)
        for trunk in (lent["params"]["trunk"], params["params"]["trunk"])
    ]
    assert shapes[0] == shapes[1]


def test_heads_can_share_keys(model):
    decoder, _, picture, tokens, _ = model
    sharing = decoder.clone(block={"kv_heads": 1})
    params = jax.eval_shape(sharing.init, jax.random.key(0), picture, tokens)
    caches = jax.eval_shape(lambda params: sharing.apply(params, picture, method="prefill"), params)
    assert [x.shape for x in jax.tree.leaves(caches)] == [(4, 1, 12 + LENGTH, 8)] * 2


def test_parameter_count(model):
    _, params, *_ = model
    w = 16
    block = 4 * w * w + 2 * (w // 2) + 2 * w * 4 * w + 2 * w
    assert (
        sum(x.size for x in jax.tree.leaves(params))
        == 9 * CHANNELS * w + (2 * WORDS + 1) * w + block + w
    )


def test_heads_must_divide_the_width(model):
    _, _, picture, tokens, _ = model
    with pytest.raises(ValueError, match="not a multiple"):
        jax.eval_shape(
            WordDecoder(WORDS, LENGTH, GRID, width=16, heads=3).init,
            jax.random.key(0),
            picture,
            tokens,
        )
