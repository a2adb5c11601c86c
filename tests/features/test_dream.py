"""DeepDream on networks whose gradients are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.features.dream import dream
from t2i_jax.features.extractor import Extractor

IMAGE = np.random.default_rng(0).integers(60, 190, (20, 30, 3)).astype(np.uint8)


def apply(weights, pictures):
    """Means of the three colours, and as maps the picture in [0, 1] and its negative."""
    x = pictures / 255.0
    return {"features": x.mean((1, 2)), "maps": [x, 1.0 - x]}


COLOURS = Extractor("Colours", "none", {}, apply)


def test_a_channel_grows_by_the_rate_and_the_others_stay():
    """The gradient is equal everywhere in one colour: 3 times the mean over all colours."""
    how = {"channel": 1, "octaves": 1, "steps": 4, "rate": 2.0}
    made, scores = dream(COLOURS, IMAGE, "features", **how)
    expected = IMAGE.astype(int) + np.array([0, 4 * 2 * 3, 0])
    np.testing.assert_allclose(made, expected, atol=1)
    assert scores.shape == (1, 4)
    np.testing.assert_allclose(np.diff(scores[0]), 6 / 255, rtol=1e-3)
    darker, _ = dream(COLOURS, IMAGE, "map1", octaves=1, steps=200)
    assert (darker == 0).all(), "the negative is as bright as can be"


def test_every_octave_raises_the_score_and_the_shape_stays():
    made, scores = dream(COLOURS, IMAGE, "map0", octaves=3, steps=5)
    assert made.shape == IMAGE.shape and scores.shape == (3, 5)
    assert (np.diff(scores, axis=1) > 0).all()
    small, _ = dream(COLOURS, IMAGE[:1, :1], "map0", octaves=3, steps=1)  # smaller than an octave
    assert small.shape == (1, 1, 3)


def edges(weights, pictures):
    """Products of neighbours, so that the gradient depends on the place."""
    x = jnp.asarray(pictures) / 255.0
    return {"features": (x[:, 1:] * x[:, :-1]).mean((1, 2)), "maps": []}


def test_the_same_seed_gives_the_same_picture():
    network = Extractor("Edges", "none", {}, edges)
    one, again, other = (
        dream(network, IMAGE, "features", octaves=2, steps=3, seed=seed)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_network_that_rounds_its_input_is_refused():
    def rounds(weights, pictures):
        return {"features": jnp.floor(jnp.asarray(pictures) + 0.5).mean((1, 2))}

    with pytest.raises(ValueError, match="features of Rounding has no gradient"):
        dream(Extractor("Rounding", "none", {}, rounds), IMAGE, "features", steps=1)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="no layer 'map7': it has features, map0, map1"):
        dream(COLOURS, IMAGE, "map7")
    with pytest.raises(ValueError, match="no channel 3: 0 to 2"):
        dream(COLOURS, IMAGE, "map0", channel=3)
