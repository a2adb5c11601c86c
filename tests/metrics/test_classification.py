"""Labels whose scores can be counted by hand."""

import numpy as np
import pytest

from t2i_jax.metrics import classification

CLASSES = ("bag", "coat", "dress", "shirt")


def test_counted_by_hand():
    """No shirt is asked for, no dress is recognised, and one of four bags is taken for a shirt."""
    asked, recognised = [0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 3, 1, 1, 1, 3]
    report = classification.accuracy(recognised, asked, CLASSES)
    assert report["accuracy"]["value"] == 5 / 8 and report["accuracy"]["n"] == 8
    assert report["recall"] == {"bag": 0.75, "coat": 1.0, "dress": 0.0}
    assert report["confusion"] == [[3, 0, 0, 1], [0, 2, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert report["missing"] == ["dress"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_interval_is_that_of_a_binomial(share):
    """Of 1,000 pictures: 1.96 standard deviations either way."""
    asked = np.zeros(1000, int)
    recognised = (np.arange(1000) >= 1000 * share).astype(int)
    report = classification.accuracy(recognised, asked, CLASSES)["accuracy"]
    deviation = 1.96 * np.sqrt(share * (1 - share) / 1000)
    assert report["value"] == pytest.approx(share)
    assert report["low"] == pytest.approx(share - deviation, abs=0.1 * deviation)
    assert report["high"] == pytest.approx(share + deviation, abs=0.1 * deviation)


def test_histogram():
    report = classification.histogram([3, 3, 0, 3], CLASSES)
    assert report == {
        "n": 4,
        "share": {"bag": 0.25, "coat": 0.0, "dress": 0.0, "shirt": 0.75},
        "missing": ["coat", "dress"],
    }


@pytest.mark.parametrize(
    ("recognised", "asked", "message"),
    [
        ([], [], "no picture"),
        ([0, 1], [0], "2 pictures and 1 classes that were asked for"),
        ([0, 4], [0, 0], "labels from 0 to 4 for 4 classes"),
        ([0, 0], [-1, 0], "labels from -1 to 0 for 4 classes"),
    ],
)
def test_bad_labels(recognised, asked, message):
    with pytest.raises(ValueError, match=message):
        classification.accuracy(recognised, asked, CLASSES)
