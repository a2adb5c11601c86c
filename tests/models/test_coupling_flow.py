"""Coupling flow: dense Jacobians, inverses, and a density that integrates to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models.coupling_flow import CouplingFlow, CouplingLayer, check

SIZES = dict(levels=2, depth=2, width=8)


def _text(batch=2, width=5, seed=0):
    pooled = jnp.asarray(np.random.default_rng(seed).normal(size=(batch, width)), jnp.float32)
    return TextCondition(pooled[:, None], pooled, jnp.ones((batch, 1), bool))


def _inputs(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _params(network, x, text, scale=0.4, seed=0):
    """Random parameters, far from those of an untrained network.

    Matrices that mix channels are 1.1 times a rotation: random ones can be near to singular.
    """
    untrained, r = network.init(jax.random.key(seed), x, text), np.random.default_rng(seed + 1)

    def draw(path, a):
        return 1.1 * a if path[-1].key == "mixing" else scale * r.normal(size=a.shape)

    params = jax.tree_util.tree_map_with_path(draw, untrained)
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)


@pytest.mark.parametrize(("channels", "levels"), [(1, 1), (1, 2), (3, 2)])
def test_the_log_determinant_is_that_of_the_dense_jacobian(channels, levels):
    flow = CouplingFlow(4, channels, levels, depth=2, width=8)
    x, text = _inputs((1, 4, 4, channels)), _text(1)
    # Larger networks make a matrix whose determinant numpy cannot tell from float32 numbers.
    params = _params(flow, x, text, scale=0.2)
    jacobian = jax.jit(jax.jacobian(lambda x: flow.apply(params, x[None], text)[0][0]))(x[0])
    dense = np.asarray(jacobian, float).reshape(16 * channels, 16 * channels)
    _, log_det = flow.apply(params, x, text)
    np.testing.assert_allclose(log_det[0], np.linalg.slogdet(dense)[1], rtol=1e-4)


def test_the_inverse_gives_back_the_input_and_the_latents():
    flow, x, text = CouplingFlow(8, 3, **SIZES), _inputs((2, 8, 8, 3)), _text()
    params = _params(flow, x, text, scale=0.1)
    forward = jax.jit(flow.apply)
    inverse = jax.jit(lambda params, z, text: flow.apply(params, z, text, method="inverse"))
    z, _ = forward(params, x, text)
    assert np.abs(np.sort(z.ravel()) - np.sort(x.ravel())).max() > 0.1  # it does something
    np.testing.assert_allclose(inverse(params, z, text), x, atol=1e-4)
    z = _inputs((2, 192), seed=2)
    np.testing.assert_allclose(forward(params, inverse(params, z, text), text)[0], z, atol=1e-4)


def test_the_density_of_two_numbers_integrates_to_one():
    """That of a pair of numbers under two layers, on a grid that holds almost all of it."""
    layers, text = [CouplingLayer(2, 8) for _ in range(2)], _text(1)
    axis = np.linspace(-12, 12, 961)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 1, 2)
    x = jnp.asarray(grid, jnp.float32)
    many = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(x), *a.shape[1:])), text)
    log_density = 0.0
    for seed, layer in enumerate(layers):
        x, change = layer.apply(_params(layer, x[:1], text, 0.5, seed), x, many)
        log_density = log_density + np.asarray(change, float)
    z = np.asarray(x, float).reshape(-1, 2)
    density = np.exp(log_density - 0.5 * (z**2).sum(1)) / (2 * np.pi)
    step = axis[1] - axis[0]
    assert density.max() > 1.5 / (2 * np.pi)  # it is not the standard normal density
    np.testing.assert_allclose(density.sum() * step**2, 1.0, rtol=1e-3)


def test_an_untrained_flow_is_a_rotation():
    flow, x, text = CouplingFlow(8, 1, **SIZES), _inputs((2, 8, 8, 1)), _text()
    z, log_det = jax.jit(flow.apply)(flow.init(jax.random.key(0), x, text), x, text)
    assert z.shape == (2, 64)
    np.testing.assert_allclose((z**2).sum(1), (x**2).sum((1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-4)


def test_an_example_and_its_text_have_an_influence_on_that_example_alone():
    flow, x, text = CouplingFlow(8, 1, **SIZES), _inputs((2, 8, 8, 1)), _text()
    params, apply = _params(flow, x, text, scale=0.2), jax.jit(flow.apply)
    before = apply(params, x, text)
    other = text._replace(pooled=text.pooled.at[0].add(1.0))
    for after in (apply(params, x.at[0].add(1.0), text), apply(params, x, other)):
        for a, b in zip(after, before, strict=True):
            assert np.abs(a[0] - b[0]).max() > 1e-2
            np.testing.assert_allclose(a[1], b[1], rtol=1e-4, atol=1e-4)


def test_possible_sizes():
    check(12, 2)
    with pytest.raises(ValueError, match=r"30 px cannot be halved 3 times.*such as 32"):
        CouplingFlow(30, 1).init(jax.random.key(0), jnp.zeros((1, 30, 30, 1)), _text(1))
