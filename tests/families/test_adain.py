"""AdaIN: statistics, the loss by its formula, the ability, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.families import adain
from t2i_jax.models.style_decoder import StyleDecoder, adapt, statistics

RNG = np.random.default_rng(0)
BATCH = {
    name: RNG.integers(0, 256, (2, 8, 12, 3)).astype(np.uint8) for name in ("image", "image_b")
}
SETTINGS = {"layer": 1, "style": 7.0}


def encode(frozen, x):
    """Maps that are known: the picture, and one of each 2 x 2 pixels."""
    return [frozen["scale"] * x, x[:, ::2, ::2]]


def decode(params, x):
    return params["factor"] * x.repeat(2, axis=1).repeat(2, axis=2)


def loss_of(batch, factor=0.5):
    keys = jax.random.split(jax.random.key(0), 2)
    ctx = Context({}, {"scale": 3.0}, {}, jnp.int32(0), batch, keys)
    loss, (_, metrics) = adain.make_loss(SETTINGS, encode, decode)({"factor": factor}, ctx)
    return loss, metrics


def test_the_content_gets_mean_and_deviation_of_the_style():
    x, y = RNG.normal(1, 2, (2, 6, 4, 3)), RNG.normal(-3, 0.5, (2, 9, 5, 3))
    made = np.asarray(adapt(x, y))
    np.testing.assert_allclose(made.mean((1, 2)), y.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(made.std((1, 2)), y.std((1, 2)), rtol=1e-4)
    flat = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    expected = flat * y.std((1, 2), keepdims=True) + y.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    np.testing.assert_allclose(adapt(x, x), x, atol=1e-5)


def test_the_loss_is_its_formula():
    loss, metrics = loss_of(BATCH)
    content, style = (np.asarray(to_unit(BATCH[name])) for name in ("image", "image_b"))
    target = np.asarray(adapt(content[:, ::2, ::2], style[:, ::2, ::2]))
    drawn = 0.5 * target.repeat(2, axis=1).repeat(2, axis=2)
    for i in range(2):
        of_content = ((0.5 * target[i] - target[i]) ** 2).sum() / (target[i] ** 2).sum()
        pairs = [(3 * drawn[i], 3 * style[i]), (0.5 * target[i], style[i, ::2, ::2])]
        each = []
        for found, wanted in pairs:
            a, b = (np.concatenate([x.mean((0, 1)), x.std((0, 1))]) for x in (found, wanted))
            each.append(((a - b) ** 2).sum() / (b**2).sum())
        np.testing.assert_allclose(metrics["content"][i], of_content, rtol=1e-4)
        np.testing.assert_allclose(metrics["style"][i], np.mean(each), rtol=1e-3)
        np.testing.assert_allclose(loss[i], of_content + 7.0 * np.mean(each), rtol=1e-3)


def test_a_perfect_decoder_of_a_picture_in_its_own_style_has_no_loss():
    smooth = BATCH["image"][:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    loss, _ = loss_of({"image": smooth, "image_b": smooth}, factor=1.0)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (7, 9), (1, 5)])
def test_strength_and_sizes(size):
    """Strength 0 gives the content's own maps, 1 those in the style, of any size."""
    stylize = adain.make_stylize(1, encode, decode)
    variables = Variables({"factor": 1.0}, {}, {"scale": 3.0})
    content = RNG.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    inputs = {"image": content, "image_b": BATCH["image_b"][:, :6, :6]}
    own, half, full = (np.asarray(stylize(variables, inputs, strength=x)) for x in (0.0, 0.5, 1.0))
    pixels = content[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(own, pixels[:, : size[0], : size[1]])
    edges = [(0, 0), *((0, max(-side % 4, 8 - side)) for side in size), (0, 0)]
    padded = to_unit(np.pad(content, edges, mode="edge"))[:, ::2, ::2]
    target = adapt(padded, to_unit(inputs["image_b"])[:, ::2, ::2])
    expected = from_unit(target.repeat(2, axis=1).repeat(2, axis=2))[:, : size[0], : size[1]]
    np.testing.assert_array_equal(full, expected)
    assert ((np.minimum(own, full) <= half) & (half <= np.maximum(own, full))).all()


def test_the_network_sees_pictures_as_the_extractor_normalises_them(monkeypatch):
    """(level - 127) / 128, and maps of its own number."""

    class Network:
        def apply(self, weights, x):
            return {"maps": [weights * x] * 5}

    monkeypatch.setattr(adain, "EfficientNetLite", Network)
    levels = BATCH["image"].astype(np.float32)
    maps = adain.encode({"extractor": 2.0}, to_unit(levels))
    assert len(maps) == len(adain.CHANNELS)
    np.testing.assert_allclose(maps[0], 2 * (levels - 127) / 128, atol=1e-5)


def test_the_decoder_undoes_the_strides(smoke):
    net = StyleDecoder(doublings=3, width=8)
    found = jax.eval_shape(net.init_with_output, jax.random.key(0), jnp.zeros((1, 4, 6, 5)))
    assert found[0].shape == (1, 32, 48, 3)
    assert found[1]["params"]["conv_3"]["kernel"].shape == (3, 3, 2, 1)
    family = adain.make(smoke("emoji_style", "adain.layer=2"))
    params, _ = jax.eval_shape(family.init, jax.random.key(0), {})
    assert params["model"]["conv_in"]["kernel"].shape == (3, 3, 40, 8)
    assert family.settings == {"stylize": {"strength": 1.0}}


def test_statistics_of_a_flat_map_have_gradients():
    flat = jnp.ones((1, 4, 4, 2))
    gradient = jax.grad(lambda x: sum(part.sum() for part in statistics(x)))(flat)
    assert np.isfinite(gradient).all()


def test_refusals(smoke, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is 34: it has to be a multiple of 4 px"):
        adain.make(smoke("emoji_style", "data.resolution=34"))
    with pytest.raises(ValueError, match="at least 8"):
        adain.make(smoke("emoji_style", "data.resolution=4"))
    with pytest.raises(ValueError, match=r"second set of pictures, the styles: set data\.name"):
        loss_of({"image": BATCH["image"]})
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="prepare --weights=efficientnet_lite0"):
        adain.make(smoke("emoji_style")).make_frozen(None, None)
