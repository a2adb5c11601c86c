"""StyleGAN2: what influences its layers and players, and the sizes of both players."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.models import stylegan2 as s

CONFIG = dict(
    network="stylegan2",
    channels=1,
    latent=5,
    width=6,
    mapping_layers=2,
    base_channels=64,
    max_channels=12,
)


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def text(count, width=3):
    return TextCondition(normal(count, 1, width), normal(count, width), jnp.ones((count, 1), bool))


def filled(init):
    """Return variables like those of init(), with the same distributions, but without compiling it.

    Compiling `init` takes seconds.
    """

    def fill(path, p):
        names = [key.key for key in path]
        start = {"kernel": 0.0, "constant": 0.0, "bias": float("style" in names), "noise": 0.0}[
            names[-1]
        ]
        size = {"bias": 0.1, "noise": 0.0}.get(
            names[-1], 100.0 if names[-2].startswith("layer_") else 1.0
        )
        return start + size * normal(*p.shape, seed=zlib.crc32(str(names).encode()))

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init))


@functools.cache
def players():
    """Both players for 8 x 8 pictures, their variables, and z, text and keys of two pictures."""
    generator, discriminator = s.make_players(CONFIG, 8)
    z, captions, keys = normal(2, 5), text(2), jax.random.split(jax.random.key(0), 2)
    of_generator = filled(lambda: generator.init(keys[0], z, captions, keys, True))
    x = jnp.zeros((2, 8, 8, 1))
    of_discriminator = filled(lambda: discriminator.init(keys[0], x, captions, True))
    return generator, discriminator, of_generator, of_discriminator, z, captions, keys


def test_minibatch_std():
    same = np.broadcast_to(normal(1, 2, 2, 3), (8, 2, 2, 3))
    # The root of the constant that keeps its derivative finite.
    np.testing.assert_allclose(s.minibatch_std(same), 1e-4, rtol=1e-2)
    x = 100.0 + normal(16, 2, 2, 3)
    np.testing.assert_allclose(
        s.minibatch_std(x), np.asarray(x, np.float64).std(0).mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        s.minibatch_std(100.0 + 3 * (x - 100.0)), 3 * s.minibatch_std(x), rtol=1e-4
    )
    on_eight = jax.pmap(lambda x: s.minibatch_std(x, "data"), axis_name="data")(
        x.reshape(8, 2, 2, 2, 3)
    )
    np.testing.assert_allclose(on_eight, np.full(8, s.minibatch_std(x)), rtol=1e-5)


def test_gradients_by_pictures_include_the_other_devices():
    """R1 takes the gradient of a sum over the batch. It includes the pictures of other devices."""
    x = normal(16, 2, 2, 3)

    def logits(x, axis_name):
        return x.sum((1, 2, 3)) ** 2 * s.minibatch_std(x, axis_name)

    whole = jax.grad(lambda x: logits(x, None).sum())(x)
    parts = jax.pmap(jax.grad(lambda x: logits(x, "data").sum()), axis_name="data")(
        x.reshape(8, 2, 2, 2, 3)
    )
    np.testing.assert_allclose(parts.reshape(x.shape), whole, rtol=1e-4, atol=1e-4)


def test_map_depends_on_the_direction_of_z_and_of_the_text():
    generator, _, variables, _, z, captions, _ = players()
    mapped = jax.jit(
        lambda z, pooled: generator.apply(
            variables, z, captions._replace(pooled=pooled), method="map"
        )
    )
    w = mapped(z, captions.pooled)
    assert w.shape == (2, 4, 6)
    np.testing.assert_array_equal(w, w[:, :1].repeat(4, 1))
    np.testing.assert_allclose(mapped(3 * z, 5 * captions.pooled), w, rtol=1e-5, atol=1e-6)
    assert np.abs(mapped(-z, captions.pooled) - w).max() > 0.1
    assert np.abs(mapped(z, -captions.pooled) - w).max() > 0.1


def test_without_a_text_gradients_stay_small():
    """The text encoder "none" gives zeros. The mapping network divides them by their size."""
    generator, _, variables, _, z, captions, _ = players()

    @jax.jit
    def largest(pooled):
        gradient = jax.grad(
            lambda v: generator.apply(v, z, captions._replace(pooled=pooled), method="map")[
                :, 0, 0
            ].sum()
        )
        return jnp.stack([jnp.abs(g).max() for g in jax.tree.leaves(gradient(variables))]).max()

    assert 0 < largest(0 * captions.pooled) < 10 * largest(captions.pooled)


def test_noise_depends_on_the_key_of_the_example_alone():
    generator, _, variables, _, z, captions, keys = players()
    loud = jax.tree_util.tree_map_with_path(
        lambda path, p: p + 1.0 if path[-1].key == "noise" else p, variables
    )

    @jax.jit
    def pictures(variables, w, keys):
        return generator.apply(variables, w, captions, keys, True, method="synthesize")

    w = jax.jit(lambda: generator.apply(variables, z, captions, method="map"))()
    # The strength starts at 0.
    np.testing.assert_array_equal(pictures(variables, w, keys), pictures(variables, w, keys[::-1]))
    x = pictures(loud, w, keys)
    np.testing.assert_allclose(pictures(loud, w[::-1], keys[::-1]), x[::-1], atol=1e-5)
    twice = pictures(loud, w[:1].repeat(2, 0), keys)
    assert np.abs(twice[0] - twice[1]).max() > 0.1
    np.testing.assert_allclose(twice[0], x[0], atol=1e-5)


def test_each_row_of_w_has_its_layers():
    """Row 0: the first convolution. Row 1: the 4 x 4 picture and `up_8`. Row 2: `conv_8`.

    Row 3: the 8 x 8 picture alone.
    """
    generator, _, variables, _, _, captions, keys = players()
    w = normal(2, 4, 6)

    def features(w):
        _, state = generator.apply(
            variables, w, captions, keys, True, method="synthesize", capture_intermediates=True
        )
        return {
            name: value["__call__"][0]
            for name, value in state["intermediates"]["synthesis"].items()
            if name != "__call__"
        }

    features = jax.jit(features)
    plain = features(w)
    order = ("conv_4", "picture_4", "up_8", "conv_8", "picture_8")
    for row, first in enumerate(("conv_4", "picture_4", "conv_8", "picture_8")):
        other = features(w + np.eye(4, dtype=np.float32)[row][:, None])
        moved = [name for name in order if np.abs(other[name] - plain[name]).max() > 1e-4]
        assert moved == list(order[order.index(first) :])


def test_the_text_enters_the_discriminator_by_a_projection():
    """For the same pictures, logits differ by <features, mapped text> / sqrt(D).

    The features do not depend on the text.
    """
    _, discriminator, _, variables, _, captions, _ = players()
    apply = jax.jit(
        lambda x, p: discriminator.apply(variables, x, captions._replace(pooled=p), True)
    )
    x, other = normal(2, 8, 8, 1), normal(2, 3, seed=1)
    (logits, features), (others, again) = apply(x, captions.pooled), apply(x, other)
    np.testing.assert_array_equal(features, again)
    mapping = s.Mapping(12, CONFIG["mapping_layers"])
    mapped = [
        mapping.apply({"params": variables["params"]["mapping"]}, None, p)
        for p in (captions.pooled, other)
    ]
    expected = (features * (mapped[0] - mapped[1])).sum(-1) / 12**0.5
    np.testing.assert_allclose(logits - others, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_layers_keep_the_size_of_a_signal():
    """At the start, outputs are as large as inputs.

    A layer with a learning rate of 0.01 has weights 100 times as large.
    """
    x = normal(32, 6, 6, 24)
    for rate in (1.0, 0.01):
        y, variables = s.Linear(16, rate=rate).init_with_output(jax.random.key(0), x)
        np.testing.assert_allclose(np.std(variables["params"]["kernel"]), 1 / rate, rtol=0.2)
        np.testing.assert_allclose(np.std(y), 1.0, rtol=0.1)
    # Leaky ReLU leaves (1 + 0.2²) / 2 of the square of a symmetric signal; the factor doubles that.
    y = s.Conv(16).init_with_output(jax.random.key(0), x)[0]
    np.testing.assert_allclose(np.square(y[:, 1:-1, 1:-1]).mean(), 1.04, rtol=0.15)


@pytest.mark.parametrize(
    ("resolution", "generator_count", "discriminator_count"), [(8, 3477, 5665), (16, 4036, 6133)]
)
def test_parameter_counts(resolution, generator_count, discriminator_count):
    generator, discriminator = s.make_players(CONFIG, resolution)
    key, x = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, resolution, resolution, 1))
    shapes = (
        jax.eval_shape(lambda: generator.init(key[0], jnp.zeros((2, 5)), text(2), key, True)),
        jax.eval_shape(lambda: discriminator.init(key[0], x, text(2), True)),
    )
    counts = [sum(p.size for p in jax.tree.leaves(variables)) for variables in shapes]
    assert counts == [generator_count, discriminator_count]


def test_invalid_resolutions_raise_errors():
    for resolution, near in ((28, 32), (4, 8), (40, 32), (2, 8), (48, 64)):
        with pytest.raises(
            ValueError,
            match=rf"resolution {resolution}: it can be 8, 16, 32, 64.*nearest is {near}$",
        ):
            s.make_players(CONFIG, resolution)
    with pytest.raises(ValueError, match="base_channels 64 over the side 128"):
        s.make_players(CONFIG, 128)
