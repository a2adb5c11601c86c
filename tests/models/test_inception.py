"""Inception-v3 of the FID: its exact size, and the pool that leaves padding out.

Comparisons with the original are in parity/.
"""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.inception import Inception, average_pool


def test_parameter_count():
    """The published network has 23,850,960 parameters.

    Folding leaves one parameter for each channel of its norms. There is no last bias.
    """
    inputs = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    (features, logits), variables = jax.eval_shape(
        Inception().init_with_output, jax.random.key(0), inputs
    )
    sizes = {
        jax.tree_util.keystr(p): int(np.prod(a.shape))
        for p, a in jax.tree_util.tree_leaves_with_path(variables)
    }
    channels = sum(size for path, size in sizes.items() if "bias" in path)
    assert len(sizes) == 2 * 94 + 1 and channels == 17_216
    assert sum(sizes.values()) == 23_850_960 - channels - 1008
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)


def test_average_pool_leaves_padding_out():
    constant = jnp.full((1, 4, 5, 2), 3.0)
    # With padding, corners would be 3 * 4 / 9.
    np.testing.assert_allclose(average_pool(constant), constant, rtol=1e-6)
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    np.testing.assert_allclose(
        average_pool(x)[0, :, :, 0], [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]], rtol=1e-6
    )
