"""BERT: the published counts, one layer against its formulas, and that padding has no influence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from t2i_jax.models.bert import VARIANTS, Bert

TINY = Bert(vocab_size=20, width=8, depth=1, heads=2, positions=6)
TOKENS = np.array([[3, 7, 7, 1, 0, 0], [5, 1, 2, 9, 4, 8]], np.int32)
MASK = np.arange(6) < np.array([[4], [6]])


@pytest.mark.parametrize(
    # The published models without their pooler (width^2 + width): 22,713,216 - 147,840 and
    # 109,482,240 - 590,592.
    ("name", "count"),
    [("MiniLM-L6", 22_565_376), ("base", 108_891_648)],
)
def test_parameter_counts(name, count):
    tokens = jax.ShapeDtypeStruct((1, 512), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 512), bool)
    shapes = jax.eval_shape(Bert(**VARIANTS[name]).init, jax.random.key(0), tokens, mask)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


def test_every_variant_is_tested():
    assert set(VARIANTS) == {"MiniLM-L6", "base"}


@pytest.fixture(scope="module")
def params():
    """Random numbers for all parameters, so that each bias and scale has an influence."""
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), TOKENS, MASK)["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0.3, 0.5, x.shape), shapes)


def test_one_layer_agrees_with_its_formula(params):
    """In NumPy and float64: h = norm(x + attention), y = norm(h + W2 gelu(W1 h)), exact GELU."""

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    layer, length = params["layer_0"], 4
    x = norm(
        params["words"][TOKENS[0, :length]] + params["positions"][:length] + params["segments"][0],
        params["norm"],
    )
    q, k, v = (
        dense(x, layer["attention"][n]).reshape(length, 2, 4) for n in ("query", "key", "value")
    )
    weights = np.exp(np.einsum("qhd,khd->hqk", q, k) / 2.0)
    weights /= weights.sum(-1, keepdims=True)
    attended = np.einsum("hqk,khd->qhd", weights, v).reshape(length, 8)
    h = norm(x + dense(attended, layer["attention"]["out"]), layer["attention_norm"])
    hidden = dense(h, layer["mlp_in"])
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    expected = norm(h + dense(hidden, layer["mlp_out"]), layer["mlp_norm"])
    got = TINY.apply({"params": jax.tree.map(np.float32, params)}, TOKENS, MASK)
    np.testing.assert_allclose(got[0, :length], expected, atol=2e-5)


def test_padding_has_no_influence(params):
    params = {"params": jax.tree.map(np.float32, params)}
    whole = TINY.apply(params, TOKENS, MASK)
    np.testing.assert_allclose(
        TINY.apply(params, TOKENS[:1, :4], MASK[:1, :4])[0], whole[0, :4], atol=1e-6
    )
    np.testing.assert_allclose(
        TINY.apply(params, np.where(MASK, TOKENS, 9), MASK)[0, :4], whole[0, :4], atol=1e-6
    )


def test_a_caption_that_is_too_long_raises_an_error(params):
    with pytest.raises(ValueError, match="7 tokens a caption: this BERT has 6 positions"):
        TINY.apply({"params": params}, np.zeros((1, 7), np.int32), np.ones((1, 7), bool))
