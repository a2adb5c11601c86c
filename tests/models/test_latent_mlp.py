"""The residual network over latents of one cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.latent_mlp import LatentMLP

NET = LatentMLP(width=16, depth=2, dropout=0.5)


def _inputs(seed=0):
    """Return (x [3, 1, 1, 10], t [3], text) at random."""
    r = np.random.default_rng(seed)
    x, sequence, pooled = (r.normal(size=s) for s in ((3, 1, 1, 10), (3, 5, 6), (3, 6)))
    text = TextCondition(jnp.asarray(sequence), jnp.asarray(pooled), jnp.ones((3, 5), bool))
    return jnp.asarray(x, jnp.float32), jnp.linspace(0.1, 0.9, 3), text


@pytest.fixture(scope="module")
def params():
    """Random parameters in place of the zeros of the start."""
    start = NET.init(jax.random.key(0), *_inputs())["params"]
    leaves, tree = jax.tree.flatten(start)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return tree.unflatten(drawn)


def apply(params, *inputs, keys=None):
    return np.asarray(NET.apply({"params": params}, *inputs, keys))


def test_it_starts_at_zero():
    inputs = _inputs()
    assert not apply(NET.init(jax.random.key(0), *inputs)["params"], *inputs).any()


def test_number_of_parameters(params):
    """Time, pooled text, input, two blocks and output."""
    condition = (256 + 1) * 16 + (16 + 1) * 16 + (6 + 1) * 16
    block = (16 + 1) * 32 + (16 + 1) * 64 + (64 + 1) * 16
    count = condition + (10 + 1) * 16 + 2 * block + (16 + 1) * 32 + (16 + 1) * 10
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_what_has_an_influence(params):
    """All of an example's own x, its time and its pooled text; no other example, no single word."""
    x, t, text = _inputs()
    before = apply(params, x, t, text)
    for i in range(10):
        changed = abs(apply(params, x.at[1, 0, 0, i].add(1.0), t, text) - before).max((1, 2, 3))
        assert changed[1] > 1e-3 and not changed[[0, 2]].any()
    pooled = text._replace(pooled=text.pooled.at[1].add(1.0))
    for other in (apply(params, x, t.at[1].add(0.2), text), apply(params, x, t, pooled)):
        changed = abs(other - before).max((1, 2, 3))
        assert changed[1] > 1e-3 and not changed[[0, 2]].any()
    words = text._replace(sequence=text.sequence + 1.0, mask=~text.mask)
    np.testing.assert_array_equal(apply(params, x, t, words), before)


def test_each_example_has_its_own_dropout(params):
    x, t, text = _inputs()
    keys = jax.random.split(jax.random.key(0), 3)
    one, other = apply(params, x, t, text, keys=keys), apply(params, x, t, text, keys=keys[::-1])
    changed = abs(one - other).max((1, 2, 3))
    assert changed[0] > 1e-3 and changed[2] > 1e-3 and not changed[1]
    assert abs(one - apply(params, x, t, text)).max() > 1e-3


def test_with_prototypes_predictions_are_mixtures_of_them():
    """At first of all alike: their mean. Scores of one make it that one."""
    net, inputs = LatentMLP(width=16, depth=1, prototypes=4), _inputs()
    start = net.init(jax.random.key(0), *inputs)["params"]
    table = np.asarray(start["prototypes"]["embedding"])
    assert table.shape == (4, 10)
    first = np.asarray(net.apply({"params": start}, *inputs))[:, 0, 0]
    np.testing.assert_allclose(first, np.tile(table.mean(0), (3, 1)), atol=1e-6)
    chosen = {**start["scores"], "bias": jnp.array([0.0, 0.0, 50.0, 0.0])}
    third = np.asarray(net.apply({"params": {**start, "scores": chosen}}, *inputs))[:, 0, 0]
    np.testing.assert_allclose(third, np.tile(table[2], (3, 1)), atol=1e-6)
