"""The recurrent text encoders against loops in numpy; padding, direction, gradients."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.fields import defaults_of
from t2i_jax.text import recurrent
from t2i_jax.text.encoder import make_encoder

TOKENS = np.array([[5, 6, 7, 9, 1, 0], [8, 1, 0, 0, 0, 0], [3, 4, 5, 6, 7, 1]], np.int32)
MASK = np.arange(6) < np.array([[5], [2], [6]])
WIDTH = 8


def text_config(cell, **fields):
    own = {"encoder": "recurrent", "cell": cell, "vocab_size": 300, "width": WIDTH, **fields}
    return ConfigDict({**defaults_of(recurrent.fields(None)), **own})


@functools.cache
def make_apply(cell, **fields):
    """Return (apply(params, tokens, mask, keys) -> TextCondition, parameters, none zero)."""
    encoder = make_encoder(text_config(cell, **fields))
    shapes, example = jax.eval_shape(lambda: encoder.init(jax.random.key(0), 6))
    assert (example.sequence.shape, example.pooled.shape, example.mask.shape) == (
        (1, 6, WIDTH),
        (1, WIDTH),
        (1, 6),
    )
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)

    @jax.jit
    def apply(params, tokens, mask, keys=None):
        return encoder.apply(params, {}, {"tokens": tokens, "mask": mask}, keys)

    return apply, params


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(layer, x):
    return x @ layer["kernel"] + layer.get("bias", 0)


def gru(cell, words):
    """Return hidden states [L, D] of word vectors [L, D].

    As in arXiv 1406.1078, with the reset gate after the matrix.
    """
    states, h = [], np.zeros(WIDTH)
    for x in words:
        r, z = (sigmoid(affine(cell["i" + gate], x) + affine(cell["h" + gate], h)) for gate in "rz")
        n = np.tanh(affine(cell["in"], x) + r * affine(cell["hn"], h))
        h = (1 - z) * n + z * h
        states.append(h)
    return np.stack(states)


def lstm(cell, words):
    """Return hidden states [L, D / 2] of word vectors [L, D], with a forget gate."""
    states, h, c = [], np.zeros(WIDTH // 2), np.zeros(WIDTH // 2)
    for x in words:
        i, f, g, o = (affine(cell["i" + gate], x) + affine(cell["h" + gate], h) for gate in "ifgo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("cell", ["gru", "bilstm"])
def test_it_equals_a_loop_over_the_words_of_each_caption(cell):
    apply, params = make_apply(cell)
    out, weights = (
        apply(params, TOKENS, MASK),
        jax.tree.map(lambda x: np.asarray(x, np.float64), params),
    )
    np.testing.assert_array_equal(out.mask, MASK)
    for row, length in enumerate(MASK.sum(1)):
        words = weights["embed"]["embedding"][TOKENS[row, :length]]
        if cell == "gru":
            states = gru(weights["gru"], words)
            last = states[-1]
        else:
            forward, backward = (
                lstm(weights["forward"], words),
                lstm(weights["backward"], words[::-1])[::-1],
            )
            states, last = (
                np.concatenate([forward, backward], 1),
                np.concatenate([forward[-1], backward[0]]),
            )
        np.testing.assert_allclose(out.sequence[row, :length], states, atol=1e-5)
        np.testing.assert_array_equal(out.sequence[row, length:], 0)
        np.testing.assert_allclose(out.pooled[row], last, atol=1e-5)


@pytest.mark.parametrize("cell", ["gru", "bilstm"])
def test_padding_has_no_influence_and_the_last_word_has(cell):
    apply, params = make_apply(cell)
    out = apply(params, TOKENS, MASK)
    for padded, mask in (
        (np.where(MASK, TOKENS, 99), MASK),  # other tokens in the padding
        (np.pad(TOKENS, ((0, 0), (0, 3))), np.pad(MASK, ((0, 0), (0, 3)))),  # more padding
    ):
        same = apply(params, padded, mask)
        np.testing.assert_allclose(same.pooled, out.pooled, atol=1e-6)
        np.testing.assert_allclose(same.sequence[:, :6], out.sequence, atol=1e-6)
    other = TOKENS.copy()
    other[2, 5] = 99
    changed = apply(params, other, MASK)
    assert np.abs(changed.pooled - out.pooled)[2].max() > 1e-3
    # Only a cell that also reads backwards knows the end of the sentence at its first token.
    assert (np.abs(changed.sequence - out.sequence)[2, 0].max() > 1e-4) == (cell == "bilstm")


@pytest.mark.parametrize("cell", ["gru", "bilstm"])
def test_every_weight_learns_and_no_row_of_padding_does(cell):
    apply, params = make_apply(cell)

    def loss(params):
        out = apply(params, TOKENS, MASK)
        return (out.pooled**2).sum() + out.sequence.sum()

    gradients = jax.jit(jax.grad(loss))(params)
    table = np.abs(gradients.pop("embed")["embedding"]).sum(1)
    np.testing.assert_array_equal(np.flatnonzero(table), np.unique(TOKENS[MASK]))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradients))


def test_dropout_has_one_key_an_example():
    (without, _), (apply, params) = make_apply("gru"), make_apply("gru", dropout=0.5)
    keys = jax.random.split(jax.random.key(1), 3)
    out = apply(params, TOKENS, MASK, keys)
    assert np.abs(out.pooled - without(params, TOKENS, MASK).pooled).max() > 1e-2
    turned = apply(params, TOKENS[::-1], MASK[::-1], keys[::-1])
    np.testing.assert_allclose(turned.pooled[::-1], out.pooled, atol=1e-6)


def test_its_tokenizer_is_trained_on_the_captions_and_nothing_is_computed_beforehand():
    encoder = make_encoder(text_config("gru"))
    assert encoder.make_tokenizer(["a small red circle"] * 20).get_vocab_size() <= 300
    assert (
        encoder.make_frozen() == {}
        and encoder.package == ""
        and encoder.precompute("text") == encoder.pretrained("text") == "text"
    )


@pytest.mark.parametrize(
    ("cell", "width", "message"),
    [
        ("lstm", 8, "text.cell = 'lstm': it can be gru or bilstm"),
        ("bilstm", 7, "text.width is 7: under bilstm it is even"),
    ],
)
def test_bad_fields(cell, width, message):
    with pytest.raises(ValueError, match=message):
        make_encoder(text_config(cell, width=width))
