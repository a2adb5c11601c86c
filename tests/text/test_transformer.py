"""The trainable text encoder."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from t2i_jax.core.fields import defaults_of
from t2i_jax.text import transformer
from t2i_jax.text.encoder import make_encoder

TOKENS = jnp.array([[5, 6, 7, 1, 0, 0], [8, 1, 0, 0, 0, 0]], jnp.int32)
MASK = jnp.arange(6) < jnp.array([[4], [2]])


def text_config(**fields):
    defaults = defaults_of(transformer.fields(None))
    return ConfigDict({**defaults, "encoder": "transformer", "vocab_size": 300, **fields})


def make_apply(depth, length=6, **fields):
    """Return (apply(tokens, mask) -> TextCondition, parameters) of an encoder of width 16."""
    encoder = make_encoder(text_config(width=16, depth=depth, heads=2, **fields))
    params, example = encoder.init(jax.random.key(0), length)
    assert (
        example.sequence.shape == (1, length, 16)
        and example.pooled.shape == (1, 16)
        and example.mask.all()
    )
    return jax.jit(
        lambda tokens, mask: encoder.apply(params, None, {"tokens": tokens, "mask": mask})
    ), params


def test_padding_has_no_influence_and_words_do():
    for depth in (0, 2):
        apply, _ = make_apply(depth)
        out = apply(TOKENS, MASK)
        padded = apply(jnp.where(MASK, TOKENS, 9), MASK)
        np.testing.assert_allclose(padded.pooled, out.pooled, atol=1e-6)
        np.testing.assert_allclose(padded.sequence[0, :4], out.sequence[0, :4], atol=1e-6)
        other = apply(TOKENS.at[0, 1].set(30), MASK)
        assert np.abs(other.pooled - out.pooled)[0].max() > 1e-3
        # Depth 0 embeds each word by itself; with depth, all words influence each other.
        assert (np.abs(other.sequence[0, 0] - out.sequence[0, 0]).max() > 1e-4) == (depth > 0)


def test_depth_0_is_word_embeddings_and_their_mean():
    apply, params = make_apply(0)
    out = apply(TOKENS, MASK)
    table = params["embed"]["embedding"]
    np.testing.assert_array_equal(out.sequence, table[TOKENS])
    np.testing.assert_allclose(out.pooled[0], table[TOKENS[0, :4]].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(out.mask, MASK)


def test_window_reaches_exactly_its_number_of_words():
    apply, _ = make_apply(0, 10, window=2)
    tokens, mask = jnp.arange(2, 12)[None], jnp.arange(10)[None] < 9
    change = np.abs(apply(tokens.at[0, 4].set(99), mask).sequence - apply(tokens, mask).sequence)
    np.testing.assert_array_equal(change[0].max(-1) > 1e-6, abs(np.arange(10) - 4) <= 2)
    padded = apply(tokens.at[0, 9].set(99), mask).sequence
    np.testing.assert_array_equal(padded[0, :9], apply(tokens, mask).sequence[0, :9])


def test_its_tokenizer_is_trained_on_the_captions():
    encoder = make_encoder(text_config())
    assert encoder.make_tokenizer(["a small red circle"] * 20).get_vocab_size() <= 300
    assert (
        encoder.make_frozen() == {}
        and encoder.package == ""
        and encoder.precompute("text") == encoder.pretrained("text") == "text"
    )
