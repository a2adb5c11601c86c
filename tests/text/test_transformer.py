"""The trainable text encoder."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import config as configs
from t2i_jax.text.condition import make_encoder

TOKENS = jnp.array([[5, 6, 7, 1, 0, 0], [8, 1, 0, 0, 0, 0]], jnp.int32)
MASK = jnp.arange(6) < jnp.array([[4], [2]])


def encoder(depth):
    config = configs.base()
    config.text.update({"vocab_size": 300, "width": 16, "depth": depth, "heads": 2})
    module = make_encoder(config.text)
    return module, module.init(jax.random.key(0), TOKENS, MASK)


def test_padding_has_no_influence_and_words_do():
    for depth in (0, 2):
        module, params = encoder(depth)
        out = module.apply(params, TOKENS, MASK)
        padded = module.apply(params, jnp.where(MASK, TOKENS, 9), MASK)
        np.testing.assert_allclose(padded.pooled, out.pooled, atol=1e-6)
        np.testing.assert_allclose(padded.sequence[0, :4], out.sequence[0, :4], atol=1e-6)
        other = module.apply(params, TOKENS.at[0, 1].set(30), MASK)
        assert np.abs(other.pooled - out.pooled)[0].max() > 1e-3
        # Alone, depth 0 embeds each word by itself; with depth, every word sees the others.
        assert (np.abs(other.sequence[0, 0] - out.sequence[0, 0]).max() > 1e-4) == (depth > 0)


def test_depth_0_is_word_embeddings_and_their_mean():
    module, params = encoder(0)
    out = module.apply(params, TOKENS, MASK)
    table = params["params"]["embed"]["embedding"]
    np.testing.assert_array_equal(out.sequence, table[TOKENS])
    np.testing.assert_allclose(out.pooled[0], table[TOKENS[0, :4]].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(out.mask, MASK)


def test_window_reaches_as_far_as_it_says():
    config = configs.base()
    config.text.update({"vocab_size": 300, "width": 16, "depth": 0, "window": 2})
    module = make_encoder(config.text)
    tokens, mask = jnp.arange(2, 12)[None], jnp.arange(10)[None] < 9
    params = module.init(jax.random.key(0), tokens, mask)
    change = np.abs(module.apply(params, tokens.at[0, 4].set(99), mask).sequence - module.apply(params, tokens, mask).sequence)
    np.testing.assert_array_equal(change[0].max(-1) > 1e-6, abs(np.arange(10) - 4) <= 2)
    padded = module.apply(params, tokens.at[0, 9].set(99), mask).sequence
    np.testing.assert_array_equal(padded[0, :9], module.apply(params, tokens, mask).sequence[0, :9])
