"""Codes of two parts: the parts together are the probability of the code."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.text import TextCondition
from t2i_jax.models.code_parts import CodeParts, split_codes
from t2i_jax.models.code_vectors import CodeVectors, mean_entries
from t2i_jax.models.prefix_decoder import PrefixDecoder

PARTS, WIDTH = (3, 4), 8


def test_codes_are_split():
    first, second = split_codes(np.arange(12), PARTS)
    np.testing.assert_array_equal(first * 4 + second, np.arange(12))
    assert first.max() == 2 and second.max() == 3
    assert split_codes(np.arange(12), ())[0].tolist() == list(range(12))


def test_the_joint_is_the_product_of_the_parts():
    rng = np.random.default_rng(0)
    module = CodeParts(PARTS, WIDTH)
    x = jnp.asarray(rng.normal(size=(2, 5, WIDTH)), jnp.float32)
    head = jnp.asarray(rng.normal(size=(WIDTH, 7)), jnp.float32)
    codes = rng.integers(0, 12, (2, 5))
    first, second = split_codes(codes, PARTS)
    params = module.init(jax.random.key(1), x, head, first)
    joint = module.apply(params, x, head, method="joint")
    np.testing.assert_allclose(jnp.exp(joint).sum(-1), 1.0, rtol=1e-5)
    parts = module.apply(params, x, head, first)
    chosen = sum(
        jnp.take_along_axis(jax.nn.log_softmax(logits), part[..., None], -1)[..., 0]
        for logits, part in zip(parts, (first, second), strict=True)
    )
    np.testing.assert_allclose(
        jnp.take_along_axis(joint, codes[..., None], -1)[..., 0], chosen, rtol=1e-5
    )
    other = module.apply(params, x, head, (first + 1) % 3)
    np.testing.assert_array_equal(other[0], parts[0])
    assert jnp.abs(other[1] - parts[1]).max() > 1e-3, "the second part depends on the first"


def test_vectors_are_shared_by_the_codes_of_a_value():
    codebook = jnp.asarray(np.random.default_rng(2).normal(size=(12, 5)), jnp.float32)
    table = np.asarray(codebook).reshape(3, 4, 5)
    entries = mean_entries(codebook, PARTS)
    np.testing.assert_allclose(entries[1], table[1].mean(0), rtol=1e-5)
    np.testing.assert_allclose(entries[3 + 2], table[:, 2].mean(0), rtol=1e-5)
    module = CodeVectors(12, 1, WIDTH, parts=PARTS)
    params = module.init(jax.random.key(0), codebook)["params"]
    assert params["embed"].shape == (3 + 4 + 1, WIDTH) and params["head"].shape == (7, WIDTH)
    flat = {**params, "look_in": jax.tree.map(jnp.zeros_like, params["look_in"])}
    embed, head = module.apply({"params": flat}, codebook)
    assert embed.shape == (13, WIDTH) and head.shape == (WIDTH, 7)
    rows = params["embed"]
    np.testing.assert_allclose(embed[1 * 4 + 2], rows[1] + rows[3 + 2], rtol=1e-5)
    np.testing.assert_array_equal(embed[12], rows[7])


def test_a_decoder_of_parts_draws_what_it_learns():
    """Decoding, a step at a time, gives the log-probabilities that training has at once."""
    decoder = PrefixDecoder(12, (2, 2), width=WIDTH, depth=1, heads=2, parts=PARTS)
    rng = np.random.default_rng(3)
    text = TextCondition(
        jnp.asarray(rng.normal(size=(2, 3, WIDTH)), jnp.float32),
        jnp.zeros((2, WIDTH)),
        jnp.ones((2, 3), bool),
    )
    codes = jnp.asarray(rng.integers(0, 12, (2, 4)), jnp.int32)
    codebook = jnp.asarray(rng.normal(size=(12, 6)), jnp.float32)
    init, apply = (jax.jit(f, static_argnames="method") for f in (decoder.init, decoder.apply))
    params = init(jax.random.key(0), text, codes, codebook, method="part_logits")
    all_logits = apply(params, text, codes, codebook)
    carry = apply(params, text, codebook, method="prefill")
    for i in range(4):
        first, carry = apply(params, text.mask, carry, codes, i, method="decode_step")
        joint = jax.nn.log_softmax(first)[:, :, None] + jnp.stack(
            [
                jax.nn.log_softmax(apply(params, carry, jnp.full(2, part), method="second_part"))
                for part in range(PARTS[0])
            ],
            axis=1,
        )
        np.testing.assert_allclose(joint.reshape(2, -1), all_logits[:, i], atol=1e-5)
