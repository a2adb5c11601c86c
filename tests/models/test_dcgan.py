"""DCGAN's layers against plain ones, and the sizes that it can make."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import dcgan


def text_of(count, length=3, width=8, seed=0):
    rng = np.random.default_rng(seed)
    sequence = jnp.asarray(rng.normal(size=(count, length, width)), jnp.float32)
    return TextCondition(sequence, sequence.mean(1), jnp.ones((count, length), bool))


def test_the_transposed_layer_is_a_transposed_convolution():
    """The kernel is [4, C, 4, c]: from C inputs of 2 x 2 cells to c outputs of 4 pixels."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 6))
    layer = dcgan.Upsample(4, "transposed")
    variables = layer.init(jax.random.key(1), x)
    # cell i, j; C; pixel a, b; c
    kernel = np.asarray(variables["params"]["conv"]["kernel"]).reshape(2, 2, 6, 2, 2, 4)
    h, w = x.shape[1:3]
    want = np.zeros((2, 2 * h, 2 * w, 4))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for y in range(2 * h):
        # Pixel a of cell (y // 2) depends on the cells (y // 2) + a - 1 and (y // 2) + a.
        for z in range(2 * w):
            a, b = y % 2, z % 2
            for i in (0, 1):
                for j in (0, 1):
                    want[:, y, z] += (
                        padded[:, y // 2 + a + i, z // 2 + b + j] @ kernel[i, j, :, a, b]
                    )
    np.testing.assert_allclose(layer.apply(variables, x), want, atol=1e-5)


def test_the_resizing_layer_keeps_constants_away_from_the_border():
    x = jnp.ones((1, 4, 4, 2))
    layer = dcgan.Upsample(3, "resize")
    variables = layer.init(jax.random.key(0), x)
    y = layer.apply(variables, x)
    np.testing.assert_allclose(y[0, 1:-1, 1:-1], jnp.broadcast_to(y[0, 3, 3], (6, 6, 3)), atol=1e-6)


@pytest.mark.parametrize(("resolution", "levels"), [(28, 2), (12, 1)])
def test_shapes_of_pictures_and_logits(resolution, levels):
    generator, discriminator = dcgan.make_players(
        {"width": 8, "levels": levels, "latent": 4, "channels": 1}, resolution
    )
    z, text, keys = jnp.ones((2, 4)), text_of(2), jax.random.split(jax.random.key(0), 2)
    x, variables = jax.jit(
        lambda: generator.init_with_output(jax.random.key(0), z, text, keys, False)
    )()
    assert x.shape == (2, resolution, resolution, 1) and abs(np.asarray(x)).max() <= 1
    (logits, features), _ = jax.jit(
        lambda x: discriminator.init_with_output(jax.random.key(1), x, text, False)
    )(x)
    assert logits.shape == (2,) and features.shape[:3] == (
        2,
        resolution // 2**levels,
        resolution // 2**levels,
    )
    assert "batch_stats" in variables


def test_downsample_is_the_convolution_of_flax_with_the_same_parameters():
    x, conv = jax.random.normal(jax.random.key(0), (2, 6, 4, 3)), nn.Conv(5, (4, 4), (2, 2))
    variables = conv.init(jax.random.key(1), x)
    ours = dcgan.Downsample(5)
    own = jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x))
    assert own == jax.tree.map(jnp.shape, variables)
    variables["params"]["bias"] = jnp.arange(5.0)
    expected = conv.apply(variables, x)
    np.testing.assert_allclose(ours.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_the_projection_is_linear_in_the_pooled_text():
    """As a function of the pooled text alone, the logits f have f(a + b) - f(b) = f(a) - f(0)."""
    _, discriminator = dcgan.make_players(
        {"width": 8, "levels": 1, "norm": "none", "channels": 1}, 4
    )
    x, text = jax.random.normal(jax.random.key(0), (2, 4, 4, 1)), text_of(2)
    variables = discriminator.init(jax.random.key(1), x, text, False)

    def logits(pooled):
        return discriminator.apply(variables, x, text._replace(pooled=pooled), False)[0]

    a, b = text.pooled, text.pooled[::-1]
    np.testing.assert_allclose(logits(a + b) - logits(b), logits(a) - logits(0 * a), atol=1e-5)
    assert abs(logits(a) - logits(b)).max() > 1e-3


def test_spectral_norm_bounds_the_layers():
    """After some updates, the estimate equals the largest singular value of the kernel."""
    _, discriminator = dcgan.make_players(
        {"width": 8, "levels": 1, "norm": "spectral", "channels": 1}, 4
    )
    x, text = jax.random.normal(jax.random.key(0), (2, 4, 4, 1)), text_of(2)
    variables = discriminator.init(jax.random.key(1), x, text, False)
    update = jax.jit(lambda v: discriminator.apply(v, x, text, True, mutable=["batch_stats"])[1])
    for _ in range(100):
        variables = {**variables, **update(variables)}
    stats = {"/".join(path[-3:]): value for path, value in _flat(variables["batch_stats"])}
    kernel = np.asarray(variables["params"]["conv_0"]["kernel"]).reshape(-1, 8)
    sigma = next(
        value for name, value in stats.items() if "conv_0" in name and name.endswith("sigma")
    )
    np.testing.assert_allclose(sigma, np.linalg.svd(kernel, compute_uv=False)[0], rtol=1e-3)


def _flat(tree, path=()):
    for key, value in tree.items():
        if hasattr(value, "items"):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"levels": 3},
            "28 cannot be made by doubling 3 times .*multiples of 8 can, the nearest is 32",
        ),
        ({"levels": 2, "upsample": "bilinear"}, "it can be transposed, resize"),
        ({"levels": 2, "attention": (28,)}, "attention has 28: the stages have the sides 14, 7"),
        ({"levels": 2, "norm": "layer"}, "it can be batch, spectral, none"),
    ],
)
def test_invalid_fields_raise_errors(config, message):
    with pytest.raises(ValueError, match=message):
        dcgan.make_players(config, 28)
