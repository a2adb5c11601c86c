"""Networks that enlarge pictures: how far they see, an untrained EDSR, their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.data.degradation import enlarge
from t2i_jax.models.edsr import EDSR, FACTORS
from t2i_jax.models.residual_dense import ResidualDense


def started(net, side=12):
    """(apply, params) of a network all of whose kernels are random."""
    x = jnp.zeros((1, side, side, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.2, s.shape), jnp.float32), shapes)
    return jax.jit(lambda params, x: net.apply({"params": params}, x)), params


@pytest.mark.parametrize("scale", FACTORS)
def test_an_untrained_edsr_is_bicubic_enlargement(scale):
    net, x = EDSR(scale, width=4, depth=1), jax.random.uniform(jax.random.key(1), (1, 6, 5, 3))
    drawn, _ = jax.jit(lambda: net.init_with_output(jax.random.key(0), x))()
    np.testing.assert_allclose(drawn, enlarge(x, scale), atol=1e-6)


@pytest.mark.parametrize(
    ("net", "reach"),
    [(EDSR(2, width=4, depth=2), 9), (ResidualDense(2, width=4, growth=2), 10)],
)
def test_a_pixel_depends_on_no_more_than_what_the_docstring_says(net, reach):
    apply, params = started(net)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 8, 64, 3)).astype(np.float32)
    before, after = apply(params, x), apply(params, x.copy() + (np.arange(64) < 32)[:, None])
    changed = np.abs(np.asarray(before - after)).max((0, 1, 3)) > 1e-5
    last = int(np.flatnonzero(changed).max()) // 2  # pixel of the small picture
    assert reach - 3 <= last - 31 <= reach


@pytest.mark.parametrize(
    "net", [EDSR(2, width=4, depth=1), ResidualDense(2, width=4, growth=2)], ids=["edsr", "rdn"]
)
def test_forward_mode_agrees_with_reverse_mode(net):
    apply, params = started(net, 4)
    x = np.random.default_rng(1).uniform(-1, 1, (1, 4, 4, 3)).astype(np.float32)

    def loss(params):
        return jnp.square(apply(params, x)).mean()

    gradients, (_, forward) = jax.grad(loss)(params), jax.jvp(loss, (params,), (params,))
    products = jax.tree.map(lambda g, p: (g * p).sum(), gradients, params)
    np.testing.assert_allclose(forward, sum(jax.tree.leaves(products)), rtol=1e-3)
