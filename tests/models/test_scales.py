"""Multi-scale quantization: grids that add up to the picture, coarse to fine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.quantize import ema, fsq, kl, vq
from t2i_jax.models.scales import over_scales, resize

SCALES = (1, 2, 4)


@pytest.fixture(scope="module")
def multi_scale():
    base = vq(64, 2, normalize=False)
    scaled = over_scales(base, SCALES)
    params, extra = base.init(jax.random.key(0))
    z = 0.5 * jax.random.normal(jax.random.key(1), (3, 4, 4, 2)) + jax.random.normal(
        jax.random.key(2), (3, 1, 1, 2)
    )
    return scaled, params, extra, z


def test_each_grid_encodes_what_the_coarser_grids_left_over(multi_scale):
    """Compare with the algorithm for a single picture, which shrinks by plain means."""
    scaled, params, extra, z = multi_scale
    codes = scaled.quantizer.encode(params, extra, z)
    assert codes.shape == (3, 1 + 4 + 16)
    rest, table = np.asarray(z[:1], np.float64), np.asarray(params["codebook"])
    want = []
    for side in SCALES:
        small = rest.reshape(1, side, 4 // side, side, 4 // side, 2).mean((2, 4))
        nearest = ((small[:, :, :, None] - table) ** 2).sum(-1).argmin(-1)
        want.append(nearest.ravel())
        rest = rest - np.asarray(resize(jnp.asarray(table[nearest]), 4))
    np.testing.assert_array_equal(codes[0], np.concatenate(want))
    np.testing.assert_allclose(scaled.compose(params, extra, codes)[:1], z[:1] - rest, atol=1e-5)


def test_shrinking_to_a_side_that_does_not_divide_splits_cells():
    x = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 3, 1))
    np.testing.assert_allclose(
        resize(x, 2)[0, :, 0, 0], [(0 + 0.5 * 1) / 1.5, (0.5 * 1 + 2) / 1.5], rtol=1e-6
    )


def test_finer_grids_reduce_the_error(multi_scale):
    scaled, params, extra, z = multi_scale
    codes = scaled.quantizer.encode(params, extra, z)
    whole = scaled.compose(params, extra, codes)
    # The first two grids.
    coarse = resize(scaled.coarse(params, extra, codes)[:, 5:].reshape(3, 4, 4, 2), 4)
    assert jnp.square(z - whole).mean() < jnp.square(z - coarse).mean() < jnp.square(z).mean()


def test_coarse_depends_on_coarser_grids_only(multi_scale):
    scaled, params, extra, z = multi_scale
    codes = scaled.quantizer.encode(params, extra, z)
    before = scaled.coarse(params, extra, codes)
    assert (before[:, 0] == 0).all()
    np.testing.assert_allclose(
        before[:, 1:5], jnp.repeat(params["codebook"][codes[:, :1]], 4, axis=1), atol=1e-6
    )
    other = scaled.coarse(params, extra, codes.at[:, 5:].set(0))
    np.testing.assert_array_equal(before, other)
    assert (scaled.coarse(params, extra, codes.at[:, 2].add(1))[:, 5:] != before[:, 5:]).any()


def test_the_gradient_goes_straight_through_the_sum(multi_scale):
    scaled, params, extra, z = multi_scale
    keys = jax.random.split(jax.random.key(3), 3)
    target = jnp.ones_like(z)

    def loss(z):
        return jnp.sum(scaled.quantizer.apply(params, extra, z, keys).vectors * target)

    np.testing.assert_allclose(jax.grad(loss)(z), target, atol=1e-6)
    found = scaled.quantizer.apply(params, extra, z, keys)
    np.testing.assert_allclose(
        found.vectors,
        scaled.compose(params, extra, scaled.quantizer.encode(params, extra, z)),
        atol=1e-5,
    )


def test_running_means_continue_from_grid_to_grid():
    """With running means, the codebook fits all grids of one batch after some steps."""
    base = ema(16, 2, normalize=False)
    scaled = over_scales(base, SCALES)
    params, extra = base.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (8, 4, 4, 2))
    apply = jax.jit(scaled.quantizer.apply)
    losses = []
    for i in range(40):
        found = apply(params, extra, z, jax.random.split(jax.random.key(i), 8))
        extra = found.extra
        losses.append(float(jnp.square(found.vectors - z).mean()))
    assert losses[-1] < 0.3 * float(jnp.square(z).mean()) and losses[-1] < losses[1]


@pytest.mark.parametrize(
    ("quantizer", "scales", "message"),
    [
        (kl(2), (1, 2), "this quantizer has none"),
        (fsq((3, 3)), (2, 1), "coarse to fine"),
        (fsq((3, 3)), (1, 1), "coarse to fine"),
    ],
)
def test_invalid_scales_raise_errors(quantizer, scales, message):
    with pytest.raises(ValueError, match=message):
        over_scales(quantizer, scales)


def test_vectors_of_another_size_than_the_finest_grid_raise_an_error(multi_scale):
    scaled, params, extra, z = multi_scale
    with pytest.raises(ValueError, match="ends with 4, and the encoder gives 2 x 2"):
        scaled.quantizer.encode(params, extra, z[:, :2, :2])
