"""Recomputing changes no gradient, keeps less for the backward pass, and costs FLOPs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import recompute
from t2i_jax.models.dit import DiT
from t2i_jax.models.flux_transformer import FluxTransformer
from t2i_jax.models.sd3_transformer import SD3Transformer
from t2i_jax.models.sd_unet import UNet2DConditionModel
from t2i_jax.models.transformer import PrefixDecoder
from t2i_jax.models.unet import UNet

PICTURES, TIME = jax.random.normal(jax.random.key(1), (2, 8, 8, 4)), jnp.array([0.2, 0.9])
TEXT = TextCondition(jnp.ones((2, 3, 8)), jnp.ones((2, 8)), jnp.ones((2, 3), bool))
KEYS = jax.random.split(jax.random.key(2), 2)
NETWORKS = {
    "dit": (DiT(patch=2, width=16, depth=2, heads=2, dropout=0.2), (PICTURES, TIME, TEXT, KEYS)),
    "unet": (UNet(8, (1,), 1, (), heads=2), (PICTURES, TIME, TEXT)),
    "decoder": (
        PrefixDecoder(5, (4, 4), width=16, depth=1, heads=2),
        (TEXT, jnp.ones((2, 16), jnp.int32), jnp.ones((5, 4))),
    ),
    "sd3": (SD3Transformer(1, 2, True, head_dim=8, max_grid=4), (PICTURES, TIME, TEXT)),
    "flux": (FluxTransformer(False, 1, 1, 2, (4, 4, 8)), (PICTURES, TIME, TEXT)),
    "sd_unet": (
        UNet2DConditionModel(4, 4, (16,), 1, (1,), heads=(1,), text_width=8),
        (PICTURES, TIME, TEXT),
    ),
}


def random_params(net, inputs):
    """Return parameters that are zero nowhere, so that every gradient is one."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.3 * rng.normal(size=x.shape), x.dtype), shapes)


def loss(net, inputs, params):
    return jnp.square(net.apply(params, *inputs)).mean()


def kept_bytes(f, params) -> int:
    """Return the bytes that the forward pass keeps for the backward pass."""
    kept = jax.eval_shape(lambda p: jax.vjp(f, p)[1], params)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_keeps_less(name):
    net, inputs = NETWORKS[name]
    params = random_params(net, inputs)
    none, dots, full = (
        kept_bytes(functools.partial(loss, net.clone(remat=remat), inputs), params)
        for remat in recompute.POLICIES
    )
    assert full < dots < none


@pytest.mark.parametrize("name", ["dit", "unet"])
def test_gradients_are_equal_and_cost_more(name):
    net, inputs = NETWORKS[name]
    params = random_params(net, inputs)

    def gradient(remat):
        compiled = (
            jax.jit(jax.grad(functools.partial(loss, net.clone(remat=remat), inputs)))
            .lower(params)
            .compile()
        )
        return compiled(params), compiled.cost_analysis()["flops"]

    none, dots, full = map(gradient, recompute.POLICIES)
    assert none[1] < dots[1] < full[1]
    for found, _ in (dots, full):
        differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found, none[0])
        largest = max(jnp.abs(x).max() for x in jax.tree.leaves(none[0]))
        assert max(jax.tree.leaves(differences)) < 1e-6 * largest


def test_a_scan_over_the_blocks_changes_no_result():
    net, inputs = NETWORKS["dit"]
    net, inputs = net.clone(dropout=0.0), inputs[:3]
    params = random_params(net, inputs)
    scanned = net.clone(scan=True, remat="full")
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, jax.eval_shape(scanned.init, jax.random.key(0), *inputs)
    )
    (one, gradient), (other, found) = (
        jax.jit(jax.value_and_grad(functools.partial(loss, n, inputs)))(params)
        for n in (net, scanned)
    )
    np.testing.assert_allclose(other, one, rtol=1e-6)
    differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found, gradient)
    largest = max(jnp.abs(x).max() for x in jax.tree.leaves(gradient))
    assert max(jax.tree.leaves(differences)) < 1e-6 * largest
    with pytest.raises(ValueError, match="a scan over the blocks needs a dropout of 0"):
        NETWORKS["dit"][0].clone(scan=True).apply(params, *NETWORKS["dit"][1])


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="'all': it can be none, dots, full"):
        recompute.recomputed(DiT, "all")
