"""Schedules in closed form; which parameters Muon takes; clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import optim
from t2i_jax.config import base


def config(**fields):
    settings = base().optim
    settings.update(fields)
    return settings


def test_learning_rate_closed_forms():
    linear = optim.learning_rate(config(learning_rate=1.0, warmup=4, schedule="linear"), 14)
    np.testing.assert_allclose([linear(s) for s in (0, 1, 3, 4, 9, 14)], [0.2, 0.4, 0.8, 1.0, 0.5, 0.0], atol=1e-6)
    cosine = optim.learning_rate(config(learning_rate=2.0, warmup=0, schedule="cosine"), 10)
    np.testing.assert_allclose([cosine(s) for s in (0, 5, 10)], [2.0, 1.0, 0.0], atol=1e-6)
    constant = optim.learning_rate(config(learning_rate=0.3, warmup=1, schedule="constant"), 10)
    np.testing.assert_allclose([constant(s) for s in (0, 1, 9)], [0.15, 0.3, 0.3], atol=1e-6)


def test_adamw_is_optax_adamw_on_matrices_and_spares_vectors():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    ours = optim.make(config(learning_rate=0.1, warmup=0, schedule="constant", weight_decay=0.5, clip=0.0, b1=0.9, b2=0.99), 10)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = ours.update(zero, ours.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], np.zeros(2))


def test_muon_takes_kernels_and_leaves_tables():
    params = {
        "block": {"kernel": jnp.ones((16, 8))},
        "conv": {"kernel": jnp.ones((3, 3, 4, 8))},
        "decoder": {"head": jnp.ones((8, 8))},
        "embed": {"embedding": jnp.ones((8, 8))},
        "norm": {"scale": jnp.ones(8)},
    }
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    ours = optim.make(config(name="muon", learning_rate=1.0, warmup=0, schedule="constant", weight_decay=0.0, clip=0.0), 10)
    updates, _ = ours.update(grads, ours.init(params), params)
    # An orthogonalised update has nearly equal singular values; its size is 0.2 * sqrt(max(in, out)).
    for name, rows in (("block", 16), ("conv", 36)):
        values = np.linalg.svd(np.asarray(updates[name]["kernel"]).reshape(rows, 8), compute_uv=False)
        assert values.max() / values.min() < 2.0
        np.testing.assert_allclose(values.mean(), 0.2 * rows**0.5, rtol=0.3)
    # The first update of Adam is the sign of the gradient.
    for name, leaf in (("decoder", "head"), ("embed", "embedding"), ("norm", "scale")):
        sign = optax.adamw(1.0, 0.9, 0.99, weight_decay=0.0, nesterov=True)
        expected, _ = sign.update(grads[name], sign.init(params[name]), params[name])
        np.testing.assert_allclose(updates[name][leaf], expected[leaf], rtol=1e-4)


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 1.0), (0.0, 200.0)])
def test_clip_bounds_what_the_optimizer_sees(clip, norm):
    params, grads = {"w": jnp.zeros(4)}, {"w": jnp.full(4, 100.0)}
    ours = optim.make(config(clip=clip, b1=0.9), 10)
    _, after = ours.update(grads, ours.init(params), params)
    (first_moment,) = (leaf for leaf in jax.tree.leaves(optax.tree_utils.tree_get(after, "mu")))
    np.testing.assert_allclose(jnp.linalg.norm(first_moment), 0.1 * norm, rtol=1e-5)


@pytest.mark.parametrize(("field", "value", "near"), [("name", "adam", "adamw"), ("schedule", "cosin", "cosine")])
def test_unknown_names(field, value, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        optim.make(config(**{field: value}), 10)
