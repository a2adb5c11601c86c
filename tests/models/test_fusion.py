"""Ways by which words reach a picture: closed gates, closed forms, and what may not matter."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import Attention, layer_norm
from t2i_jax.models.dit import DiT
from t2i_jax.models.fusion import GatedCrossAttention, Resampler

RNG = np.random.default_rng(0)
WIDTH = 8


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


CELLS, WORDS = normal(3, 6, WIDTH), normal(3, 5, WIDTH)
MASK = jnp.asarray(np.arange(5) < np.array([3, 5, 0])[:, None])  # the third caption has no word
TEXT = TextCondition(WORDS, normal(3, WIDTH), MASK)


def random(module, *inputs):
    """Return random parameters in place of the initial ones, of which some are zeros."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda x: 0.5 * normal(*x.shape), shapes)


def test_a_gate_starts_closed_and_can_open():
    layer = GatedCrossAttention(heads=2, hidden=16)
    params = jax.jit(layer.init)(jax.random.key(0), CELLS, WORDS, MASK)["params"]
    found = jax.jit(layer.apply)({"params": params}, CELLS, WORDS, MASK)
    np.testing.assert_array_equal(found, CELLS)
    gradient = jax.jit(
        jax.grad(lambda p: jnp.square(layer.apply({"params": p}, CELLS, WORDS, MASK)).sum())
    )(params)
    assert all(abs(gradient[name]) > 1e-2 for name in ("attention_gate", "mlp_gate"))


def test_gates_weigh_the_branches_by_their_tanh():
    """Flamingo's equations, with the attention and the network written out apart."""
    layer = GatedCrossAttention(heads=2, hidden=16)
    params = random(layer, CELLS, WORDS, MASK)
    own = {"params": params["cross_attention"]}
    apply = jax.jit(layer.apply)
    for a, b in ((0.7, 0.0), (-3.0, 0.4)):
        given = {**params, "attention_gate": jnp.float32(a), "mlp_gate": jnp.float32(b)}
        attended, _ = Attention(2).apply(own, layer_norm(CELLS), WORDS, MASK)
        y = CELLS + np.tanh(a) * attended
        hidden = layer_norm(y) @ params["mlp_in"]["kernel"] + params["mlp_in"]["bias"]
        out = jax.nn.gelu(hidden) @ params["mlp_out"]["kernel"] + params["mlp_out"]["bias"]
        found = apply({"params": given}, CELLS, WORDS, MASK)
        np.testing.assert_allclose(found, y + np.tanh(b) * out, rtol=1e-4, atol=1e-5)


def test_with_closed_gates_a_network_is_the_one_without_words():
    """Where the gates are 0, "gated" is "film" with the same weights, whatever is said."""
    fields = dict(patch=2, width=WIDTH, depth=2, heads=2)
    gated, film = DiT(**fields, text_mode="gated"), DiT(**fields, text_mode="film")
    inputs = (normal(3, 4, 4, 3), jnp.linspace(0.1, 0.9, 3), TEXT)
    params = random(gated, *inputs)
    for i in range(2):
        params[f"block_{i}"]["fusion"].update(attention_gate=jnp.float32(0))
        params[f"block_{i}"]["fusion"].update(mlp_gate=jnp.float32(0))
    kept = {name: x for name, x in params.items() if name != "text_in"}
    for i in range(2):
        block = kept[f"block_{i}"]
        kept[f"block_{i}"] = {name: x for name, x in block.items() if name != "fusion"}
    apply = jax.jit(gated.apply)
    found, expected = (
        apply({"params": params}, *inputs),
        jax.jit(film.apply)({"params": kept}, *inputs),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    params["block_1"]["fusion"].update(attention_gate=jnp.float32(1))
    moved = jnp.abs(apply({"params": params}, *inputs) - expected).max((1, 2, 3))
    assert (moved[:2] > 1e-3).all()


def test_film_with_zero_weights_says_nothing():
    """The norms are scaled by 1 and shifted by 0, whatever the caption and the time are."""
    net = DiT(patch=2, width=WIDTH, depth=2, heads=2, gate_init=0.5, text_mode="film")
    x, t = normal(3, 4, 4, 3), jnp.linspace(0.1, 0.9, 3)
    params = jax.jit(net.init)(jax.random.key(0), x, t, TEXT)["params"]
    params["patch_out"] = {"kernel": normal(WIDTH, 12), "bias": normal(12)}
    apply = jax.jit(net.apply)
    found = apply({"params": params}, x, t, TEXT)
    other = TEXT._replace(pooled=-3.0 * TEXT.pooled)
    np.testing.assert_array_equal(apply({"params": params}, x, t[::-1], other), found)
    params["block_0"]["modulation"]["kernel"] = normal(WIDTH, 6 * WIDTH)
    first, second = (apply({"params": params}, x, t, text) for text in (TEXT, other))
    assert np.abs(first - second).max() > 1e-2


def test_padding_and_order_of_words_do_not_matter_to_a_resampler():
    resampler = Resampler(queries=4, heads=2, hidden=16)
    params = {"params": random(resampler, WORDS, MASK)}
    apply = jax.jit(resampler.apply)
    found = apply(params, WORDS, MASK)
    assert found.shape == (3, 4, WIDTH) and np.isfinite(found).all()
    padded = jnp.where(MASK[..., None], WORDS, 100.0)
    np.testing.assert_array_equal(apply(params, padded, MASK), found)
    order = jnp.array([[2, 0, 1, 3, 4], [4, 2, 0, 1, 3], [0, 1, 2, 3, 4]])  # padding stays behind
    shuffled = jnp.take_along_axis(WORDS, order[..., None], axis=1)
    np.testing.assert_allclose(apply(params, shuffled, MASK), found, atol=1e-5)
    longer = apply(
        params, jnp.pad(WORDS, ((0, 0), (0, 3), (0, 0))), jnp.pad(MASK, ((0, 0), (0, 3)))
    )
    np.testing.assert_allclose(longer, found, atol=1e-5)
    changed = apply(params, WORDS.at[1, 4, 0].add(1.0), MASK) - found
    assert np.abs(changed[1]).max() > 1e-3 and not np.abs(changed[jnp.array([0, 2])]).any()


def test_a_resampler_that_cannot_choose_takes_the_mean():
    """With keys of 0 all weights are equal: the values' mean over queries and words, in NumPy."""
    resampler = Resampler(queries=4, heads=2, hidden=16)
    params = random(resampler, WORDS, MASK)
    for layer in ("layer_0", "layer_1"):
        params[layer]["attention"]["key"] = jax.tree.map(
            jnp.zeros_like, params[layer]["attention"]["key"]
        )
        params[layer]["mlp_out"] = jax.tree.map(jnp.zeros_like, params[layer]["mlp_out"])

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    found = jax.jit(resampler.apply)({"params": params}, WORDS, MASK)
    for i, count in enumerate((3, 5, 0)):
        x = np.asarray(params["start"])
        for layer in ("layer_0", "layer_1"):
            weights = jax.tree.map(np.asarray, params[layer]["attention"])
            both = norm(np.concatenate([x, WORDS[i, :count]]))
            value = (both @ weights["value"]["kernel"] + weights["value"]["bias"]).mean(0)
            x = x + value @ weights["out"]["kernel"] + weights["out"]["bias"]
        np.testing.assert_allclose(found[i], norm(x), rtol=1e-3, atol=1e-4)


def test_parameter_counts():
    """What each way adds to the network whose norms alone are told the caption."""
    inputs = (normal(3, 4, 4, 3), jnp.linspace(0.1, 0.9, 3), TEXT)

    def count(text_mode):
        net = DiT(2, WIDTH, 2, 2, text_mode=text_mode, queries=3)
        shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
        return sum(x.size for x in jax.tree.leaves(shapes))

    w = WIDTH
    dense, norms = w * w + w, 2 * (w // 2)
    attention, mlp = 4 * dense + norms, 8 * w * w + 5 * w
    film = count("film")
    assert count("joint") - film == dense  # the layer that the words enter by
    assert count("cross") - film == dense + 2 * (attention + 3 * dense)
    assert count("gated") - film == dense + 2 * (attention + mlp + 2)
    assert count("resampler") - count("cross") == 3 * w + 2 * (attention + mlp)
