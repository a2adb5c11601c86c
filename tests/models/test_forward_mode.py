"""Forward-mode derivatives (jax.jvp) of every network, alone and together with reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import dcgan, mlp_gan, stylegan2, vae, vqgan
from t2i_jax.models.bert import Bert
from t2i_jax.models.clip import CLIP
from t2i_jax.models.dit import DiT
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.models.flux_transformer import FluxTransformer
from t2i_jax.models.layers import matmul
from t2i_jax.models.masked_transformer import MaskedTransformer
from t2i_jax.models.next_scale import NextScale
from t2i_jax.models.patch_discriminator import PatchDiscriminator
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.sd3_transformer import SD3Transformer
from t2i_jax.models.t5 import T5Encoder
from t2i_jax.models.unet import UNet
from t2i_jax.models.word_decoder import WordDecoder
from t2i_jax.text.recurrent import Recurrent
from t2i_jax.text.transformer import TextTransformer

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


MASK = jnp.asarray(np.arange(4) < np.array([2, 4])[:, None])
TOKENS = jnp.asarray(RANDOM.integers(0, 7, (2, 4)), jnp.int32)
TEXT = TextCondition(normal(2, 4, 8), normal(2, 8), MASK)
TIME = jnp.array([0.2, 0.7])
PICTURES = normal(2, 8, 8, 3)
KEYS = jax.random.split(jax.random.key(0), 2)
CODES = jnp.asarray(RANDOM.integers(0, 5, (2, 6)), jnp.int32)
BOOK = normal(5, 4)
TRANSFORMER = dict(width=8, depth=1, heads=2)
DIT = dict(patch=4, width=8, depth=1, heads=2)
CONV = dict(width=4, multipliers=(1, 2), blocks=1, attention=(1,))
STYLE = dict(mapping_layers=1, base_channels=32, max_channels=4)
STAGES = ((1, 3, 1, 1, 4), (1, 3, 2, 2, 8))
TOWER = dict(width=8, depth=1, heads=2)

NETWORKS = {
    "dit_joint": (DiT(**DIT), (PICTURES, TIME, TEXT)),
    "dit_cross": (DiT(**DIT, text_mode="cross", overlap=True), (PICTURES, TIME, TEXT)),
    "dit_gated": (DiT(**DIT, text_mode="gated"), (PICTURES, TIME, TEXT)),
    "dit_resampler": (DiT(**DIT, text_mode="resampler", queries=2), (PICTURES, TIME, TEXT)),
    "dit_remat": (DiT(**DIT, dropout=0.2, remat="dots"), (PICTURES, TIME, TEXT, KEYS)),
    "dit_bfloat16": (DiT(**DIT, dtype=jnp.bfloat16), (PICTURES, TIME, TEXT)),
    "unet": (UNet(**CONV, heads=2, patch=2), (PICTURES, TIME, TEXT)),
    "prefix_decoder": (PrefixDecoder(5, (2, 3), **TRANSFORMER), (TEXT, CODES, BOOK)),
    "prefix_decoder_of_language_models": (
        PrefixDecoder(
            5,
            (2, 3),
            **TRANSFORMER,
            block={"mlp": "swiglu", "rope": 10000.0, "kv_heads": 1},
            causal_text=True,
        ),
        (TEXT, CODES, BOOK),
    ),
    "masked_transformer": (
        MaskedTransformer(5, (2, 3), **TRANSFORMER),
        (TEXT, CODES, CODES > 2, BOOK),
    ),
    "next_scale": (NextScale(5, (1, 2), **TRANSFORMER), (TEXT, normal(2, 5, 4), BOOK)),
    "word_decoder": (WordDecoder(7, 4, (2, 3), **TRANSFORMER), (normal(2, 6, 4), TOKENS)),
    "vae_encoder": (vae.Encoder(4, width=4, hidden=8), (PICTURES, TEXT)),
    "vae_decoder": (vae.Decoder(8, scale="each", width=4, hidden=8), (normal(2, 4), TEXT)),
    "vqgan_encoder": (vqgan.Encoder(3, **CONV, project=True), (PICTURES,)),
    "vqgan_decoder": (vqgan.Decoder(**CONV, resample="fold"), (normal(2, 4, 4, 3),)),
    "dcgan_generator": (
        dcgan.Generator(8, latent=4, width=4, levels=1, attention=(4,), heads=2),
        (normal(2, 4), TEXT, KEYS, True),
    ),
    "dcgan_discriminator": (
        dcgan.Discriminator(width=4, levels=1, norm="spectral"),
        (PICTURES, TEXT, True),
    ),
    "mlp_generator": (mlp_gan.Generator(4, 1, 4, (6,)), (normal(2, 4), TEXT, None, True)),
    "mlp_discriminator": (mlp_gan.Discriminator((6, 5)), (PICTURES, TEXT, True)),
    "stylegan2_generator": (
        stylegan2.Generator(8, latent=4, width=6, **STYLE),
        (normal(2, 4), TEXT, KEYS, True),
    ),
    "stylegan2_discriminator": (stylegan2.Discriminator(**STYLE), (PICTURES, TEXT, True)),
    "patch_discriminator": (PatchDiscriminator(width=4, levels=1), (PICTURES,)),
    "bert": (Bert(7, **TRANSFORMER, positions=4), (TOKENS, MASK)),
    "clip": (
        CLIP(
            3,
            dict(side=8, patch=4, **TOWER),
            dict(vocab_size=7, length=4, end=6, **TOWER),
        ),
        (PICTURES, TOKENS),
    ),
    "t5": (T5Encoder(8, 1, 2, 6, head_dim=4, vocab_size=7), (TOKENS, MASK)),
    "sd3_transformer": (
        SD3Transformer(2, 2, True, (0,), head_dim=4, max_grid=4),
        (PICTURES, TIME, TEXT),
    ),
    "flux_transformer": (
        FluxTransformer(True, 1, 1, 2, (2, 2, 4)),
        (PICTURES, TIME, TEXT._replace(vector=normal(2, 1))),
    ),
    "efficientnet_lite": (EfficientNetLite(STAGES, classes=2), (PICTURES,)),
    "text_transformer": (TextTransformer(7, **TRANSFORMER, window=1), (TOKENS, MASK)),
    "text_gru": (Recurrent(7, width=4), (TOKENS, MASK)),
    "text_bilstm": (Recurrent(7, width=4, cell="bilstm"), (TOKENS, MASK)),
}


def is_float(x) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def of_floats(network, inputs):
    """Return (f, x): the network as a function of its parameters and inputs that are floats.

    Parameters are random, because many start at zero. f returns the outputs that are floats.
    """

    def init():
        return network.init({"params": jax.random.key(0)}, *inputs)

    state = dict(jax.eval_shape(init))
    params = jax.tree.map(lambda a: 0.3 * normal(*a.shape), state.pop("params"))
    state = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), state)
    leaves, structure = jax.tree.flatten((params, inputs))
    places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

    def f(x):
        for place, leaf in zip(places, x, strict=True):
            leaves[place] = leaf
        params, inputs = jax.tree.unflatten(structure, leaves)
        outputs = network.apply({"params": params, **state}, *inputs, mutable=list(state))
        return [out for out in jax.tree.leaves(outputs[0]) if is_float(out)]

    return f, [leaves[place] for place in places]


def inner(a, b):
    return sum(jnp.vdot(x.astype(jnp.float32), y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_mode_agrees_with_reverse_mode(name):
    """<J v, J v> = <Jᵀ J v, v> for a random tangent v of all parameters and inputs."""
    f, x = of_floats(*NETWORKS[name])

    @jax.jit
    def products(x, v):
        _, along = jax.jvp(f, (x,), (v,))
        (back,) = jax.vjp(f, x)[1](along)
        return inner(along, along), inner(back, v)

    forward, reverse = products(x, [normal(*a.shape) for a in x])
    assert forward > 0
    np.testing.assert_allclose(reverse, forward, rtol=0.02 if "bfloat16" in name else 1e-4)


def test_gradients_of_a_loss_with_a_forward_derivative():
    """As in MeanFlow (arXiv 2505.13447, equation 11): the target holds the derivative along a path.

    With the gradient stopped at the target, it is that of a constant target.
    """
    net = DiT(**DIT)
    shapes = jax.eval_shape(net.init, jax.random.key(0), PICTURES, TIME, TEXT)
    params = jax.tree.map(lambda a: 0.3 * normal(*a.shape), shapes)
    v = normal(*PICTURES.shape)

    def target_of(params):
        out, along = jax.jvp(
            lambda x, t: net.apply(params, x, t, TEXT), (PICTURES, TIME), (v, jnp.ones(2))
        )
        return out, v - TIME[:, None, None, None] * along

    def loss(params):
        out, target = target_of(params)
        return jnp.square(out - jax.lax.stop_gradient(target)).mean()

    def distance(params, target):
        return jnp.square(net.apply(params, PICTURES, TIME, TEXT) - target).mean()

    ours = jax.jit(jax.grad(loss))(params)
    expected = jax.jit(lambda p: jax.grad(distance)(p, target_of(p)[1]))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, expected
    )


def scanned(f, x, w):
    return jax.lax.scan(lambda total, row: (total + f(row, w).sum(), f(row, w)), 0.0, x)


TRANSFORMS = {  # each: (f, x, w, dx, dw) -> arrays
    "value": lambda f, x, w, dx, dw: f(x, w),
    "vjp": lambda f, x, w, dx, dw: jax.vjp(f, x, w)[1](jnp.cos(f(x, w))),
    "jvp": lambda f, x, w, dx, dw: jax.jvp(f, (x, w), (dx, dw)),
    "jvp_of_x": lambda f, x, w, dx, dw: jax.jvp(lambda x: f(x, w), (x,), (dx,)),
    "jvp_of_w": lambda f, x, w, dx, dw: jax.jvp(lambda w: f(x, w), (w,), (dw,)),
    "linearize": lambda f, x, w, dx, dw: jax.linearize(f, x, w)[1](dx, dw),
    "vmap": lambda f, x, w, dx, dw: jax.vmap(f, (0, None))(x, w),
    "vmap_of_both": lambda f, x, w, dx, dw: jax.vmap(f)(x, jnp.stack([w, dw])),
    "vmap_of_w": lambda f, x, w, dx, dw: jax.vmap(f, (None, 0))(x, jnp.stack([w, dw])),
    "scan": lambda f, x, w, dx, dw: scanned(f, x, w),
    "scan_of_jvp": lambda f, x, w, dx, dw: jax.jvp(lambda x, w: scanned(f, x, w), (x, w), (dx, dw)),
    "grad_of_scan": lambda f, x, w, dx, dw: jax.grad(lambda w: jnp.sin(scanned(f, x, w)[0]))(w),
    "remat": lambda f, x, w, dx, dw: jax.grad(jax.checkpoint(loss_of(f)), (0, 1))(x, w),
    "jvp_of_remat": lambda f, x, w, dx, dw: jax.jvp(jax.checkpoint(loss_of(f)), (x, w), (dx, dw)),
    "grad_of_grad": lambda f, x, w, dx, dw: jax.grad(
        lambda w: jnp.square(jax.grad(loss_of(f))(x, w)).sum()
    )(w),
    "jvp_of_grad": lambda f, x, w, dx, dw: jax.jvp(jax.grad(loss_of(f), (0, 1)), (x, w), (dx, dw)),
    "grad_of_jvp": lambda f, x, w, dx, dw: jax.grad(
        lambda x, w: jax.jvp(loss_of(f), (x, w), (dx, dw))[1], (0, 1)
    )(x, w),
    "gradient_per_example": lambda f, x, w, dx, dw: jax.vmap(
        lambda x: jax.grad(loss_of(f), 1)(x[None], w)
    )(x),
    "pmap": lambda f, x, w, dx, dw: jax.pmap(jax.grad(loss_of(f), (0, 1)), in_axes=(0, None))(x, w),
}


def loss_of(f):
    return lambda x, w: jnp.sin(f(x, w)).sum()


@pytest.mark.parametrize(
    ("dtype", "shape"), [(jnp.float32, (6, 3)), (jnp.float32, (3, 6)), (jnp.bfloat16, (6, 3))]
)
def test_matmul_is_the_plain_product_under_every_transform(dtype, shape):
    x, dx = (normal(2, 5, shape[0]).astype(dtype) for _ in range(2))
    w, dw = (normal(*shape).astype(dtype) for _ in range(2))
    rtol = 1e-5 if dtype == jnp.float32 else 0.05
    for name, transform in TRANSFORMS.items():
        if name != "pmap":  # a pmap inside a jit has no use
            transform = jax.jit(transform, static_argnums=0)
        ours, plain = (jax.tree.leaves(transform(f, x, w, dx, dw)) for f in (matmul, jnp.matmul))
        assert len(ours) == len(plain)
        for a, b in zip(ours, plain, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), name
            a, b = (np.asarray(c, np.float32) for c in (a, b))
            np.testing.assert_allclose(a, b, rtol, rtol * abs(b).max(), err_msg=name)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6)])
@pytest.mark.parametrize("batch", [(), (1,), (4,), (2, 5), (2, 1, 3), (0, 2)])
def test_gradients_of_matmul_are_products_of_rows(batch, shape):
    x, w, dy = normal(*batch, shape[0]), normal(*shape), normal(*batch, shape[1])
    y, pull = jax.vjp(matmul, x, w)
    rows, dy_rows = (np.reshape(a, (-1, a.shape[-1])) for a in (x, dy))
    for ours, expected in zip((y, *pull(dy)), (x @ w, dy @ w.T, rows.T @ dy_rows), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
