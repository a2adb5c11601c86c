"""The generator: its size, how far it sees, its norm, and what it does at the border."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.resnet_generator import ResNetGenerator, check

KEY = jax.random.key(0)


def count(net):
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((1, 32, 32, 3)))
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_the_size_of_the_papers_network():
    """11.4 million parameters with 9 blocks, as counted by hand."""

    def conv(inputs, outputs, side):
        return side * side * inputs * outputs + outputs

    by_hand = conv(3, 64, 7) + conv(64, 128, 3) + conv(128, 256, 3) + 18 * conv(256, 256, 3)
    by_hand += conv(256, 128, 3) + conv(128, 64, 3) + conv(64, 3, 7)
    assert count(ResNetGenerator(norm="none")) == by_hand
    assert 11.3e6 < by_hand < 11.5e6
    # Each norm has a scale and a shift.
    norms = 2 * (64 + 128 + 256 + 18 * 256 + 128 + 64)
    assert count(ResNetGenerator()) == by_hand + norms


@pytest.mark.parametrize("norm", ["instance", "none"])
def test_pictures_do_not_change_each_other(norm):
    net = ResNetGenerator(4, 1, 1, norm)
    x = jax.random.normal(KEY, (3, 8, 12, 3))
    params = net.init(KEY, x)
    y = net.apply(params, x)
    assert y.shape == x.shape and np.abs(y).max() < 1
    np.testing.assert_allclose(net.apply(params, x[1:2]), y[1:2], atol=1e-6)


def test_one_colour_stays_one_colour_up_to_the_border():
    """Reflection: with zeros beyond the border, it would show."""
    net = ResNetGenerator(4, 1, 1, "none")
    x = jnp.ones((1, 8, 8, 3)) * jnp.array([0.5, -0.2, 0.9])
    y = net.apply(net.init(KEY, x), x)
    np.testing.assert_allclose(y, jnp.broadcast_to(y[:, 4:5, 4:5], y.shape), atol=1e-6)


@pytest.mark.parametrize(("levels", "side"), [(2, 30), (1, 2), (5, 48)])
def test_sides_that_cannot_be_halved(levels, side):
    with pytest.raises(ValueError, match=f"levels is {levels}.*resolution, which is {side}"):
        check(levels, side)
