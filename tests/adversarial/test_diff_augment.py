"""DiffAugment: what each augmentation does, gradients through it, and names of policies."""

import functools

import jax
import numpy as np
import pytest

from t2i_jax.adversarial import diff_augment


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def pictures(count=4, height=12, width=12, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


def test_cutout_is_one_rectangle_of_zeros():
    x = np.ones((500, 8, 8, 2), np.float32)
    gone = np.asarray(jax.jit(diff_augment.cutout)(x, keys(500)) == 0)
    assert (gone[..., 0] == gone[..., 1]).all()
    rows, columns = gone[..., 0].any(2), gone[..., 0].any(1)
    np.testing.assert_array_equal(gone[..., 0], rows[:, :, None] & columns[:, None])
    # 4 of 8, fewer where it reaches over the border: the centre is anywhere in 0 .. 8.
    for side in (rows, columns):
        assert np.bincount(side.sum(1)).nonzero()[0].tolist() == [2, 3, 4]
        assert (abs(np.diff(np.pad(side, ((0, 0), (1, 1))).astype(int))).sum(1) == 2).all()


def test_gradients_flow_through_the_policy():
    @jax.jit
    def difference_and_gradient(x, keys):
        augment = functools.partial(
            diff_augment.apply_policy, "colour, translation,cutout", keys=keys
        )
        before, gradient_of = jax.vjp(augment, x)
        return weight * (augment(x + step) - before), gradient_of(weight)[0]

    x, step, weight = (pictures(2, 8, 8, seed) for seed in (0, 1, 2))
    # A step of any size will do: all three are affine in x.
    difference, gradient = difference_and_gradient(x, keys(2))
    assert (gradient != 0).any((1, 2, 3)).all()
    np.testing.assert_allclose(
        (gradient * step).sum((1, 2, 3)), difference.sum((1, 2, 3)), rtol=1e-4
    )


def test_a_policy_is_a_list_of_names():
    x = pictures()
    assert diff_augment.apply_policy("", x, keys(4)) is x
    with pytest.raises(ValueError, match="'color': there are colour, translation, cutout"):
        diff_augment.apply_policy("colour,color", x, keys(4))
