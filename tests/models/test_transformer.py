"""The decoder: what influences what, and cached decoding against full recomputation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.text import TextCondition
from t2i_jax.decoding.autoregressive import generate
from t2i_jax.models.layers import with_neighbours
from t2i_jax.models.prefix_decoder import PrefixDecoder, neighbour_table, prefix_mask
from t2i_jax.models.transformer import Block, Transformer, window_table

LENGTH, CODES, GRID = 5, 17, (3, 4)
BOOK = jnp.asarray(np.random.default_rng(1).normal(size=(CODES, 6)), jnp.float32)  # the codebook


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    sequence = rng.normal(size=(4, LENGTH, 8)).astype(np.float32)
    mask = np.arange(LENGTH) < np.array([1, 3, 5, 2])[:, None]
    text = TextCondition(jnp.asarray(sequence), jnp.zeros((4, 8)), jnp.asarray(mask))
    codes = jnp.asarray(rng.integers(0, CODES, (4, 12)), jnp.int32)
    decoder = PrefixDecoder(codes=CODES, grid=GRID, width=16, depth=2, heads=2)
    params = jax.jit(decoder.init)(jax.random.key(0), text, codes, BOOK)
    # The learned rows of the output start at zero; here they have an influence.
    params["params"]["vectors"]["head"] = jnp.asarray(
        0.1 * rng.normal(size=(CODES, 16)), jnp.float32
    )
    return decoder, params, text, codes


def test_the_hidden_layer_sees_the_cells_beside_its_own():
    """Without attention, a block is its GELU network. Two places come before the 2 x 3 cells."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 16))
    block = Block(heads=2, grid=(2, 3))
    params = block.init(jax.random.key(1), x, None)["params"]
    params["attention"] = jax.tree.map(jnp.zeros_like, params["attention"])
    normalised = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    cells = with_neighbours(normalised[:, 2:], (2, 3))
    seen = jnp.concatenate([normalised[:, :2], cells], axis=1)
    hidden = jax.nn.gelu(seen @ params["mlp_in"]["kernel"], approximate=True)
    expected = x + hidden @ params["mlp_out"]["kernel"]
    np.testing.assert_allclose(block.apply({"params": params}, x, None)[0], expected, atol=1e-5)
    assert not np.allclose(cells, normalised[:, 2:])


def test_prefix_mask_by_hand():
    mask = np.asarray(prefix_mask(jnp.array([[True, True, False]]), 2))[0, 0]
    expected = [[1, 1, 0, 0, 0]] * 3 + [[1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    causal = np.asarray(prefix_mask(jnp.array([[True, True, False]]), 2, causal_text=True))[0, 0]
    expected[:2] = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
    np.testing.assert_array_equal(causal, np.array(expected, bool))


def test_neighbour_table_by_hand():
    out = 6
    expected = [  # two rows above, the row above, the two to the left
        [*[out] * 5, *[out] * 5, out, out],
        [*[out] * 5, *[out] * 5, out, 0],
        [*[out] * 5, *[out] * 5, 0, 1],
        [*[out] * 5, out, out, 0, 1, 2, out, out],
        [*[out] * 5, out, 0, 1, 2, out, out, 3],
        [*[out] * 5, 0, 1, 2, out, out, 3, 4],
    ]
    np.testing.assert_array_equal(neighbour_table((2, 3)), expected)
    np.testing.assert_array_equal(neighbour_table((3, 3))[7], [9, 0, 1, 2, 9, 9, 3, 4, 5, 9, 9, 6])


def test_window_table():
    """Each place of a 2 x 3 grid with its eight neighbours; 6 is the outside."""
    table = window_table((2, 3), 1)
    np.testing.assert_array_equal(table[1], [6, 6, 6, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(table[5], [1, 2, 6, 4, 5, 6, 6, 6, 6])
    np.testing.assert_array_equal(window_table((2, 3), 0)[:, 0], np.arange(6))
    assert window_table((3, 3), 2).shape == (9, 25) and (window_table((3, 3), 2)[4] < 9).sum() == 9


def test_later_tokens_and_padding_have_no_influence(model):
    decoder, params, text, codes = model
    logits = decoder.apply(params, text, codes, BOOK)
    changed = decoder.apply(params, text, codes.at[:, 6:].add(1) % CODES, BOOK)
    np.testing.assert_allclose(changed[:, :7], logits[:, :7], atol=1e-5)
    assert np.abs(changed[:, 7:] - logits[:, 7:]).max() > 1e-3
    padded = text._replace(sequence=jnp.where(text.mask[..., None], text.sequence, 100.0))
    np.testing.assert_allclose(decoder.apply(params, padded, codes, BOOK), logits, atol=1e-5)
    other = text._replace(sequence=text.sequence.at[:, 0].add(1.0))
    assert np.abs(decoder.apply(params, other, codes, BOOK) - logits).max(axis=(1, 2)).min() > 1e-3


def test_cached_logits_agree_with_full_recomputation(model):
    """Teacher-forced, to 1e-5 in float32."""
    decoder, params, text, codes = model
    full = decoder.apply(params, text, codes, BOOK)
    carry = decoder.apply(params, text, BOOK, method="prefill")
    step = jax.jit(
        lambda carry, before, i: decoder.apply(
            params, text.mask, carry, before, i, method="decode_step"
        )
    )
    for i in range(decoder.length):
        before = jnp.where(jnp.arange(12) < i, codes, 0)
        logits, carry = step(carry, before, i)
        np.testing.assert_allclose(logits, full[:, i], atol=1e-5)


BLOCKS = {
    "llama": (
        True,
        {"mlp": "swiglu", "hidden": 24, "rope": 10000.0, "kv_heads": 2, "qk_norm": False},
    ),
    "gpt2": (True, {"norm": "layer", "epsilon": 1e-5, "bias": True, "qk_norm": False}),
    "prefix": (False, {"mlp": "gelu", "rope": 100.0, "kv_heads": 1, "head_dim": 6}),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_cached_logits_agree_with_full_recomputation_for_other_blocks(model, name):
    _, _, text, codes = model
    causal_text, block = BLOCKS[name]
    text = text._replace(
        sequence=jnp.concatenate([text.sequence, text.sequence[..., ::-1]], axis=-1)
    )
    decoder = PrefixDecoder(
        codes=CODES,
        grid=GRID,
        width=16,
        depth=1,
        heads=4,
        block=ConfigDict(block),
        causal_text=causal_text,
    )
    params = jax.jit(lambda key: decoder.init(key, text, codes, BOOK))(jax.random.key(0))
    assert ("text_in" in params["params"]) != causal_text

    @jax.jit
    def cached(params):
        def step(carry, i):
            before = jnp.where(jnp.arange(12) < i, codes, 0)
            logits, carry = decoder.apply(params, text.mask, carry, before, i, method="decode_step")
            return carry, logits

        carry = decoder.apply(params, text, BOOK, method="prefill")
        assert carry[1][0]["k"].shape == (
            4,
            block.get("kv_heads", 4),
            LENGTH + 12,
            block.get("head_dim", 4),
        )
        return jax.lax.scan(step, carry, jnp.arange(12))[1].swapaxes(0, 1)

    full = jax.jit(lambda params, text: decoder.apply(params, text, codes, BOOK))
    logits = full(params, text)
    np.testing.assert_allclose(cached(params), logits, atol=1e-5)
    moved = full(params, text._replace(sequence=text.sequence.at[:, 0].multiply(-1.0)))
    assert np.abs(moved - logits).max(axis=(1, 2)).min() > 1e-3


def test_a_swiglu_block_agrees_with_numpy():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    block = Block(2, mlp="swiglu", hidden=10, norm="layer", epsilon=1e-3, bias=True)
    params = jax.jit(block.init)(jax.random.key(0), x, None)["params"]
    params = jax.tree.map(
        lambda p: p + 0.3 * np.random.default_rng(p.size).normal(size=p.shape).astype(np.float32),
        params,
    )
    # Only the network with the hidden layer remains.
    params["attention"]["out"] = jax.tree.map(jnp.zeros_like, params["attention"]["out"])
    norm, gate, up, out = (
        jax.tree.map(np.asarray, params[name])
        for name in ("mlp_norm", "mlp_gate", "mlp_in", "mlp_out")
    )
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * norm[
        "scale"
    ] + norm["bias"]
    gate, up = (y @ layer["kernel"] + layer["bias"] for layer in (gate, up))
    expected = x + (gate / (1 + np.exp(-gate)) * up) @ out["kernel"] + out["bias"]
    np.testing.assert_allclose(
        jax.jit(block.apply)({"params": params}, x, None)[0], expected, atol=1e-5
    )


def test_invalid_blocks_raise_errors(model):
    _, _, text, codes = model
    for block, message in [
        ({"norm": "batch"}, "norm is 'batch': it can be rms or layer"),
        ({"mlp": "relu"}, "mlp is 'relu': it can be gelu_tanh, gelu, swiglu"),
        (
            {"ropes": 1.0},
            r"model\.block\.ropes is unknown: a block has norm, epsilon, .*, rope, kv_heads, "
            "head_dim",
        ),
        ({"heads": 4}, r"model\.block\.heads is unknown"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(
                Transformer(1, 2, block=block).init, jax.random.key(0), jnp.zeros((1, 2, 8)), None
            )
    decoder = PrefixDecoder(codes=CODES, grid=GRID, width=16, heads=2, causal_text=True)
    with pytest.raises(
        ValueError, match="the caption's vectors are of width 8; they must be of 16"
    ):
        jax.eval_shape(decoder.init, jax.random.key(0), text, codes, BOOK)


def test_greedy_tokens_are_the_most_probable_where_the_margin_is_clear(model):
    decoder, params, text, _ = model

    def cached(carry, tokens, i):
        return decoder.apply(params, text.mask, carry, tokens, i, method="decode_step")

    carry = decoder.apply(params, text, BOOK, method="prefill")
    keys = jax.random.split(jax.random.key(0), 4)
    drawn = np.asarray(
        jax.jit(lambda c: generate(cached, c, decoder.length, keys, temperature=0.0))(carry)
    )
    clear = 0
    for i in range(decoder.length):
        logits = np.asarray(decoder.apply(params, text, jnp.asarray(drawn), BOOK))[:, i]
        best = np.sort(logits, axis=-1)
        decided = best[:, -1] - best[:, -2] > 1e-4
        np.testing.assert_array_equal(drawn[decided, i], logits.argmax(-1)[decided])
        clear += decided.sum()
    assert clear > 40  # of 48


def test_parameter_count(model):
    _decoder, params, _, _ = model
    w, d = 16, 8  # width; width of a text vector
    block = 4 * w * w + 2 * (w // 2) + 2 * w * 4 * w + 2 * w
    look = BOOK.shape[1] * 2 * w + 2 * w + 2 * (2 * w * w)
    expected = d * w + look + (CODES + 1) * w + CODES * w + 12 * w * w + 2 * block + w
    assert sum(x.size for x in jax.tree.leaves(params)) == expected


def test_bfloat16_agrees_with_float32_and_keeps_float32_weights(model):
    decoder, params, text, codes = model
    half = decoder.clone(dtype=jnp.bfloat16)
    assert all(
        x.dtype == jnp.float32
        for x in jax.tree.leaves(half.init(jax.random.key(0), text, codes, BOOK))
    )
    difference = np.abs(
        half.apply(params, text, codes, BOOK) - decoder.apply(params, text, codes, BOOK)
    )
    assert 0 < difference.max() < 0.3

    def gradient_of_the_table(module):
        wide = [
            jnp.tile(x, (64,) + (1,) * (x.ndim - 1)) for x in (*text[:3], codes)
        ]  # many places share a row
        loss = lambda p: (module.apply(p, TextCondition(*wide[:3]), wide[3], BOOK) ** 2).sum()  # noqa: E731
        return jax.jit(jax.grad(loss))(params)["params"]["vectors"]["embed"]

    exact, rounded = gradient_of_the_table(decoder), gradient_of_the_table(half)
    assert np.abs(rounded - exact).max() < 0.05 * np.abs(exact).max()


def test_codes_that_look_alike_have_equal_logits_at_the_start(model):
    """At the start, the logits of two codes with the same entry in the codebook are equal."""
    decoder, _, text, codes = model
    book = BOOK.at[3].set(BOOK[11])
    logits = decoder.apply(decoder.init(jax.random.key(0), text, codes, book), text, codes, book)
    np.testing.assert_allclose(logits[..., 3], logits[..., 11], atol=1e-6)
    assert np.abs(logits[..., 3] - logits[..., 4]).max() > 1e-2


def test_heads_must_divide_the_width(model):
    _, _, text, codes = model
    with pytest.raises(ValueError, match="not a multiple"):
        PrefixDecoder(codes=CODES, grid=GRID, width=16, depth=1, heads=3).init(
            jax.random.key(0), text, codes, BOOK
        )
