"""Guidance against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.diffusion.guidance import (
    combine,
    guided,
    projected,
    scale_at,
    zero_before,
    zero_star,
)

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


def _norms(x):
    return jnp.sqrt((x**2).sum((1, 2, 3)))


def test_projected():
    difference = COND - UNCOND
    np.testing.assert_allclose(
        projected(COND, difference, 3.0, 1.0), guided(COND, UNCOND, 3.0), atol=1e-5
    )
    np.testing.assert_array_equal(projected(COND, difference, 1.0), COND)
    update = projected(COND, difference, 2.0) - COND
    np.testing.assert_allclose((update * COND).sum((1, 2, 3)), 0.0, atol=1e-4)
    # A difference along `cond` alone is dropped; one across it is kept.
    np.testing.assert_allclose(projected(COND, 0.5 * COND, 4.0), COND, atol=1e-5)
    np.testing.assert_allclose(projected(COND, update, 4.0), COND + 3 * update, atol=1e-5)
    # The limit shortens what is longer.
    short = projected(COND, difference, 2.0, 1.0, 0.5) - COND
    np.testing.assert_allclose(_norms(short), 0.5, rtol=1e-4)
    np.testing.assert_allclose(
        projected(COND, difference, 2.0, 1.0, 1e3), guided(COND, UNCOND, 2.0), atol=1e-5
    )
    np.testing.assert_array_equal(projected(COND, 0 * COND, 3.0), COND)


def test_zero_star():
    # The length of the unconditional prediction does not matter, only its direction.
    once = zero_star(COND, UNCOND, 3.0)
    np.testing.assert_allclose(zero_star(COND, 7.0 * UNCOND, 3.0), once, atol=1e-5)
    np.testing.assert_array_equal(zero_star(COND, UNCOND, 1.0), COND)
    np.testing.assert_allclose(zero_star(COND, 0.2 * COND, 5.0), COND, atol=1e-5)
    # At scale 0 what is left of `cond` is the multiple of `uncond` that is nearest to it.
    rest = COND - zero_star(COND, UNCOND, 0.0)
    np.testing.assert_allclose((rest * UNCOND).sum((1, 2, 3)), 0.0, atol=1e-4)
    assert jnp.isfinite(zero_star(COND, 0 * UNCOND, 3.0)).all()


def test_zero_before():
    np.testing.assert_array_equal(zero_before(COND, 0.9, 0.8), 0 * COND)
    for arguments in ((0.8, 0.8), (0.1, 0.8), (1.0,)):
        np.testing.assert_array_equal(zero_before(COND, *arguments), COND)
