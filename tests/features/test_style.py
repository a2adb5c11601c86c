"""Style by optimisation, on a network whose Gram matrices are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.features.extractor import Extractor
from t2i_jax.features.style import gram, relative_error, stylize

RNG = np.random.default_rng(0)
CONTENT = RNG.integers(0, 256, (12, 16, 3)).astype(np.uint8)


def apply(weights, pictures):
    x = jnp.asarray(pictures) / 255.0
    return {"maps": [x, x[:, ::2, ::2], x[:, ::4, ::4]]}


PIXELS = Extractor("Pixels", "none", {}, apply)


def test_a_gram_matrix_by_hand():
    x = np.array([[[1.0, 2.0], [3.0, -1.0]]])[None]  # two places, two channels
    np.testing.assert_allclose(gram(x)[0], [[5.0, -0.5], [-0.5, 2.5]])
    y = RNG.normal(size=(1, 4, 6, 5))
    np.testing.assert_allclose(gram(y), gram(y[:, ::-1, ::-1]), atol=1e-6)  # places do not count
    assert relative_error(3 * jnp.ones(4), jnp.ones(4)) == 4.0


def test_the_loss_falls_and_the_colours_go_towards_those_of_the_style():
    """The style is a picture of one colour, red, and of another size."""
    red = np.broadcast_to(np.array([250, 10, 10], np.uint8), (9, 7, 3))
    made = {s: stylize(PIXELS, CONTENT, red, s, 60) for s in (0.0, 1.0, 100.0)}
    for strength, (image, losses) in made.items():
        assert image.shape == CONTENT.shape and image.dtype == np.uint8
        assert losses[-1] < 0.9 * losses[0] or strength == 0.0
    redness = [float(image[..., 0].mean()) - image[..., 1].mean() for image, _ in made.values()]
    assert redness[0] + 50 < min(redness[1:])
    again, _ = stylize(PIXELS, CONTENT, red, 1.0, 60)
    np.testing.assert_array_equal(again, made[1.0][0])


def test_a_picture_in_its_own_style_has_no_loss():
    smooth = np.full((8, 8, 3), 90, np.uint8)
    _, losses = stylize(PIXELS, smooth, smooth, 1.0, 1)
    assert losses[0] < 1e-9


def test_a_network_without_maps_is_refused():
    blind = Extractor("Blind", "none", {}, lambda w, x: {"features": x.mean((1, 2))})
    with pytest.raises(ValueError, match="gives no maps"):
        stylize(blind, CONTENT, CONTENT)
