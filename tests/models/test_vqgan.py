"""The convolutional autoencoder: exact sizes, shapes, and what has an influence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.vqgan import VARIANTS, Decoder, Encoder, check, factor

SMALL = dict(width=8, multipliers=(1, 2), blocks=1, middle_attention=False)
FOLDED = dict(
    width=8,
    multipliers=(1, 3),
    blocks=2,
    attention=(0,),
    middle_attention=False,
    patch=2,
    resample="fold",
)


def sizes(features, dim, **fields):
    """Return the numbers of parameters of [encoder, decoder]."""
    net = Encoder(features, **fields)
    x, z = (
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for shape in ((1, 64, 64, 3), (1, 64 // factor(net), 64 // factor(net), dim))
    )
    trees = [
        jax.eval_shape(module.init, jax.random.key(0), a)
        for module, a in ((net, x), (Decoder(**fields), z))
    ]
    return [sum(a.size for a in jax.tree.leaves(tree)) for tree in trees]


def formula(
    features,
    dim,
    width,
    multipliers,
    blocks,
    attention=(),
    middle_attention=True,
    patch=1,
    resample="conv",
    project=False,
):
    def dense(a, b, kernel=1):
        return a * b * kernel + b

    def res(a, b):
        return 2 * a + 2 * b + dense(a, b, 9) + dense(b, b, 9) + (a != b) * dense(a, b)

    def attend(c):
        return 2 * c + 4 * dense(c, c)

    def resampling(c, down):
        return (
            dense(c, c, 9) if resample == "conv" else dense(4 * c, c) if down else dense(c, 4 * c)
        )

    sides, last = [width * m for m in multipliers], width * multipliers[-1]
    middle = 2 * res(last, last) + middle_attention * attend(last)
    encoder = dense(3 * patch**2, sides[0], 9) + middle + 2 * last + dense(last, features, 9)
    decoder = dense(dim, last, 9) + middle + 2 * sides[0] + dense(sides[0], 3 * patch**2, 9)
    before = sides[0]
    for level, c in enumerate(sides):
        encoder += (
            res(before, c) + (blocks - 1) * res(c, c) + (level in attention) * blocks * attend(c)
        )
        encoder += (level < len(sides) - 1) * resampling(c, True)
        before = c
    for level, c in reversed(list(enumerate(sides))):
        decoder += (
            res(before, c) + blocks * res(c, c) + (level in attention) * (blocks + 1) * attend(c)
        )
        decoder += (level > 0) * resampling(c, False)
        before = c
    return [encoder + project * dense(features, features), decoder + project * dense(dim, dim)]


@pytest.mark.parametrize("fields", [*VARIANTS.values(), FOLDED], ids=[*VARIANTS, "folded"])
def test_parameter_count(fields):
    assert sizes(8, 4, **fields) == formula(8, 4, **fields)


def test_published_parameter_counts():
    assert sum(sizes(8, 4, **VARIANTS["SD"])) == 83_653_863
    assert sum(sizes(32, 16, **VARIANTS["SD3"])) == 83_819_683


def both(x, z, **fields):
    """Return the encoder and the decoder, as functions with random parameters, without zeros."""
    nets = Encoder(5, **{**SMALL, **fields}), Decoder(**{**SMALL, **fields})
    shapes = [
        jax.eval_shape(net.init, jax.random.key(0), a) for net, a in zip(nets, (x, z), strict=True)
    ]
    r = np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(r.normal(size=a.shape) * 0.2, jnp.float32), shapes)
    return [
        jax.jit(lambda a, net=net, own=own: net.apply(own, a))
        for net, own in zip(nets, params, strict=True)
    ]


@pytest.mark.parametrize("fields", [{}, {"resample": "fold", "patch": 2, "project": True}])
def test_what_has_an_influence(fields):
    """A change is largest near its place, and reaches the whole picture by the norms.

    Other pictures do not change.
    """
    side = 8 * factor(Encoder(5, **{**SMALL, **fields}))
    r = np.random.default_rng(1)
    x, z = (
        jnp.asarray(r.normal(size=shape), jnp.float32)
        for shape in ((2, side, side, 3), (2, 8, 8, 4))
    )
    encode, decode = both(x, z, **fields)
    assert encode(x).shape == (2, 8, 8, 5) and decode(z).shape == (2, side, side, 3)
    for apply, a in ((encode, x), (decode, z)):
        change = np.abs(apply(a.at[1, 0, 0].add(1.0)) - apply(a))
        assert change[0].max() < 1e-5 and change[1].max() > 1e-3
        assert change[1, 0, 0].max() > 10 * change[1, -1, -1].max()


def test_invalid_fields_raise_errors():
    net = Encoder(4, **SMALL, patch=4)
    check(net, 24)
    with pytest.raises(
        ValueError, match=r"picture of 36 px does not divide into cells of 8 px .* such as 32"
    ):
        check(net, 36)
    with pytest.raises(ValueError, match="conv, fold"):
        check(Encoder(4, resample="shuffle"), 32)
    with pytest.raises(ValueError, match="attention at level 4: there are 4 levels"):
        check(Encoder(4, attention=(3, 4)), 32)
