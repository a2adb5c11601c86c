"""The discriminator of patches: its size, and what influences a logit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.patch_discriminator import PatchDiscriminator, check


def random_params(net, x):
    """Random parameters, without zeros."""
    r = np.random.default_rng(1)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    return jax.tree.map(lambda a: (r.normal(size=a.shape) * 0.3).astype(np.float32), shapes)


def test_parameter_count():
    """The count of pix2pix's, which takes two pictures at once.

    Its BatchNorm has as many parameters as GroupNorm.
    """
    x = jax.ShapeDtypeStruct((1, 256, 256, 6), jnp.float32)
    net = PatchDiscriminator()
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(params)) == 2_768_705
    assert jax.eval_shape(net.apply, params, x).shape == (1, 30, 30)


@pytest.mark.parametrize(("levels", "reach"), [(1, 16), (2, 34)])
def test_a_logit_depends_on_a_square_of_pixels(levels, reach):
    """Tested without norms, which depend on the whole picture."""
    net, x = (
        PatchDiscriminator(4, levels),
        np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32),
    )
    params = random_params(net, x)

    def without_norms(method, args, kwargs, context):
        return args[0] if isinstance(context.module, nn.GroupNorm) else method(*args, **kwargs)

    def logit(x):
        with nn.intercept_methods(without_norms):
            logits = net.apply(params, x)
        return logits[0, logits.shape[1] // 2, logits.shape[2] // 2]

    influence = np.abs(np.asarray(jax.jit(jax.grad(logit))(x)))[0].max(-1)
    rows, columns = (np.flatnonzero(influence.max(axis)) for axis in (1, 0))
    assert np.ptp(rows) + 1 == np.ptp(columns) + 1 == reach


def test_pictures_do_not_influence_one_another():
    net, x = (
        PatchDiscriminator(4, 2),
        jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 16, 3)), jnp.float32),
    )
    params = random_params(net, x)
    apply = jax.jit(net.apply)
    both = apply(params, x)
    assert both.shape == (3, 2, 2) and both.std() > 0.1
    changed = apply(params, x.at[1].add(1.0))
    np.testing.assert_allclose(changed[::2], both[::2], atol=1e-6)
    assert abs(changed[1] - both[1]).max() > 1e-3


def test_invalid_sizes_raise_errors():
    check(2, 12)
    with pytest.raises(
        ValueError, match=r"levels is 3.* picture of 16 px must be at least 3 \* 2\^levels"
    ):
        check(3, 16)
    with pytest.raises(ValueError, match="levels is 0"):
        check(0, 16)
