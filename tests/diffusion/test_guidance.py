"""Guidance against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.diffusion.guidance import combine, guided, scale_at

COND, UNCOND = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)), jnp.float32)


def test_guided():
    np.testing.assert_array_equal(guided(COND, UNCOND, 3.0), COND + 2.0 * (COND - UNCOND))
    np.testing.assert_array_equal(guided(COND, UNCOND, 1.0), COND)
    per_example = jnp.array([1.0, 2.0, 0.0]).reshape(3, 1, 1, 1)
    together = guided(COND, UNCOND, per_example)
    for i, scale in enumerate((1.0, 2.0, 0.0)):
        np.testing.assert_array_equal(together[i], guided(COND[i], UNCOND[i], scale))


def test_combine():
    np.testing.assert_allclose(combine(COND, UNCOND, 3.0), 3.0 * COND - 2.0 * UNCOND, atol=1e-5)
    np.testing.assert_allclose(combine(COND, UNCOND, 0.0), UNCOND, atol=1e-6)


def test_a_scale_of_one_is_the_conditional_prediction_exactly():
    for rescale in (0.0, 0.7, 1.0):
        np.testing.assert_array_equal(combine(COND, UNCOND, 1.0, rescale), COND)
        np.testing.assert_array_equal(jax.jit(combine)(COND, UNCOND, 1.0, rescale), COND)
    flat = jnp.ones((2, 4))
    np.testing.assert_array_equal(combine(flat, 0 * flat, 1.0, 0.7), flat)


def test_rescale_brings_back_each_examples_deviation():
    plain = combine(COND, UNCOND, 5.0)
    axes = (1, 2, 3)
    np.testing.assert_allclose(combine(COND, UNCOND, 5.0, 1.0).std(axes), COND.std(axes), rtol=1e-5)
    half = combine(COND, UNCOND, 5.0, 0.5)
    np.testing.assert_allclose(half, (plain + combine(COND, UNCOND, 5.0, 1.0)) / 2, atol=1e-5)


def test_interval():
    t = jnp.array([0.0, 0.2, 0.5, 0.8, 1.0])
    np.testing.assert_array_equal(scale_at(t, 4.0, 0.2, 0.8), [1, 4, 4, 4, 1])
    np.testing.assert_array_equal(scale_at(t, 4.0), 4 * np.ones(5))


def test_nothing_recompiles():
    traces = []

    @jax.jit
    def compiled(scale, rescale, low, high):
        traces.append(1)
        return combine(COND, UNCOND, scale_at(0.5, scale, low, high), rescale)

    compiled(1.0, 0.0, 0.0, 1.0), compiled(7.5, 0.7, 0.3, 0.4)
    assert len(traces) == 1
