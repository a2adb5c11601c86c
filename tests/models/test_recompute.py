"""Recomputing and scans change no gradient; recomputing keeps less and costs FLOPs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.models import recompute
from t2i_jax.models.dit import DiT
from t2i_jax.models.flux_transformer import FluxTransformer
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.sd3_transformer import SD3Transformer
from t2i_jax.models.sd_unet import UNet2DConditionModel
from t2i_jax.models.unet import UNet

PICTURES, TIME = jax.random.normal(jax.random.key(1), (2, 8, 8, 4)), jnp.array([0.2, 0.9])
TEXT = TextCondition(jnp.ones((2, 3, 8)), jnp.ones((2, 8)), jnp.ones((2, 3), bool))
NETWORKS = {
    "dit": (DiT(patch=2, width=16, depth=2, heads=2), (PICTURES, TIME, TEXT)),
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
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    policies = recompute.POLICIES if name in ("dit", "unet") else ("none", "full")
    kept = [
        kept_bytes(functools.partial(loss, net.clone(remat=remat), inputs), params)
        for remat in policies
    ]
    assert kept == sorted(kept, reverse=True) and len(set(kept)) == len(kept)


def test_gradients_are_equal():
    """Also those of a scan over the blocks, which have the same parameters."""
    net, inputs = NETWORKS["dit"]
    params = random_params(net, inputs)

    def gradient(**fields):
        f = functools.partial(loss, net.clone(**fields), inputs)
        compiled = jax.jit(jax.value_and_grad(f)).lower(params).compile()
        return compiled(params), compiled.cost_analysis()["flops"]

    (plain, flops), (full, more_flops) = gradient(), gradient(remat="full")
    scanned, _ = gradient(remat="dots", scan=True)
    assert more_flops > 1.2 * flops
    largest = max(jnp.abs(x).max() for x in jax.tree.leaves(plain[1]))
    for found in (full, scanned):
        differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found, plain)
        assert max(jax.tree.leaves(differences)) < 1e-6 * largest


def test_a_scan_has_no_dropout():
    net, inputs = NETWORKS["dit"]
    with pytest.raises(ValueError, match="a scan over the blocks needs a dropout of 0"):
        jax.eval_shape(net.clone(scan=True, dropout=0.1).init, jax.random.key(0), *inputs)


def test_a_text_encoder_is_computed_again_as_a_whole(smoke, tiny_batch):
    kept = []
    for remat in ("none", "full"):
        config = smoke("shapes_diffusion", f"parallel.remat={remat}")
        batch, frozen = tiny_batch(config)
        conditioning = make_conditioning(config)
        params = jax.eval_shape(lambda c=conditioning, b=batch: c.init(jax.random.key(0), b)[0])

        def total(params, c=conditioning, b=batch, f=frozen):
            return c.encode(params, f, c.text_of(b)).sequence.sum()

        kept.append(kept_bytes(total, params))
    parameters = sum(4 * math.prod(x.shape) for x in jax.tree.leaves(params))
    inputs = sum(np.asarray(x).nbytes for x in jax.tree.leaves(batch["text"]))
    assert kept[1] <= parameters + inputs < kept[0]


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="'all': it can be none, dots, full"):
        recompute.recomputed(DiT, "all")
