"""The classifier learns what can be learned, the same way each time."""

import jax
import numpy as np
import pytest

from t2i_jax.evaluation import classifier


def bars(count, seed):
    """Noisy pictures of 8 px with a vertical or a horizontal bar somewhere: (images, labels)."""
    rng = np.random.default_rng(seed)
    labels, places = rng.integers(0, 2, count), rng.integers(0, 8, count)
    images = rng.integers(0, 60, (count, 8, 8, 3)).astype(np.uint8)
    for image, label, place in zip(images, labels, places, strict=True):
        image[(slice(None), place) if label else place] = 200
    return images, labels


@pytest.fixture(scope="module")
def fitted():
    images, labels = bars(900, 0)
    return classifier.fit(images.__getitem__, labels, 2)


def test_it_learns_and_its_answer_does_not_depend_on_the_batch(fitted):
    images, labels = bars(150, 1)
    found = classifier.predict(fitted, images)
    assert (found == labels).mean() > 0.98 and found.dtype == np.int64
    np.testing.assert_array_equal(found[5:9], classifier.predict(fitted, images[5:9]))


def test_the_same_seed_gives_the_same_parameters():
    images, labels = bars(160, 0)
    one, again, other = (classifier.fit(images.__getitem__, labels, 2, seed) for seed in (0, 0, 1))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one["logits"]["kernel"] != other["logits"]["kernel"]).any()


@pytest.mark.parametrize(("side", "expected"), [(28, 461_738), (32, 584_618)])
def test_size(side, expected):
    """Convolutions of 12 x 32, 32 x 64 and 64 x 64 channels, 9 weights each.

    At the end, (side // 4)² x 64 x 128 and 128 x 10.
    """
    shapes = jax.eval_shape(
        classifier.Classifier(10).init, jax.random.key(0), np.zeros((1, side, side, 3), np.uint8)
    )
    count = sum(x.size for x in jax.tree.leaves(shapes))
    convolutions = 9 * (12 * 32 + 32 * 64 + 64 * 64) + 160
    assert count == expected == convolutions + ((side // 4) ** 2 * 64 + 1) * 128 + 1290


def test_what_it_cannot_be_fitted_to_is_refused():
    images, labels = bars(9, 0)
    with pytest.raises(ValueError, match="even side and two classes, not 7 px"):
        classifier.fit(lambda at: images[at, :7, :7], labels, 2)
    with pytest.raises(ValueError, match="two classes, not 8 px"):
        classifier.fit(images.__getitem__, 0 * labels, 2)
