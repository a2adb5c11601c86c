"""Style in one pass, with small networks of random weights. parity/ has the published ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.features import magenta_style
from t2i_jax.models.style_predictor import StylePredictor
from t2i_jax.models.style_transformer import StyleTransformer

RNG = np.random.default_rng(0)


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights():
    """Weights of small networks, which stand for the published ones while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        small = {
            "StylePredictor": functools.partial(StylePredictor, stages=((1, 4, 1, 4),)),
            "StyleTransformer": functools.partial(StyleTransformer, width=1, blocks=1),
        }
        for name, net in small.items():
            patch.setattr(magenta_style, name, net)
        picture, style = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 100))
        parts = jax.jit(small["StylePredictor"]().init)(jax.random.key(0), picture)
        draw = jax.jit(small["StyleTransformer"]().init)(jax.random.key(1), picture, style)
        boosted = jax.tree.map(lambda p: 9.0 * p, parts["params"])  # styles differ more
        yield {"predictor": boosted, "transformer": draw["params"]}


def test_strength_goes_from_the_own_style_to_the_other(weights):
    content, styles = noise(12, 16), (noise(20, 20) // 4, 255 - noise(9, 9) // 4)
    none, full = (
        [magenta_style.stylize(weights, content, style, strength) for style in styles]
        for strength in (0.0, 1.0)
    )
    np.testing.assert_array_equal(none[0], none[1])
    assert (full[0] != full[1]).any() and (full[0] != none[0]).any()
    own = magenta_style.stylize(weights, content, content, 1.0)
    np.testing.assert_array_equal(none[0], own)
    np.testing.assert_array_equal(full[0], magenta_style.stylize(weights, content, styles[0]))


def test_the_central_square_of_a_style_counts(weights):
    content, square = noise(12, 16), noise(16, 16)
    wide = np.concatenate([noise(16, 7), square, noise(16, 7)], axis=1)
    first, second = (magenta_style.stylize(weights, content, x) for x in (square, wide))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("size", [(9, 14), (1, 16)])
def test_every_size_is_kept(weights, size):
    content = noise(*size)
    found = magenta_style.stylize(weights, content, noise(8, 8))
    assert found.shape == content.shape and found.dtype == np.uint8


def test_missing_weights_tell_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"main\.py prepare --weights=magenta_style.*--arch"
    ):
        magenta_style.load()
