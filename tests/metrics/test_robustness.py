"""Each noise does what its name says and nothing else; scores are against the clean input."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_jax.data import shapes
from t2i_jax.metrics import robustness
from t2i_jax.metrics.alignment import parse_caption
from t2i_jax.metrics.robustness import NOISES, PICTURE_NOISES
from t2i_jax.metrics.similarity import psnr

CAPTIONS = [shapes.scene("test", i).caption for i in range(40)]
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), np.uint8)
TEXTS = st.lists(
    st.text(max_size=30) | st.sampled_from([*CAPTIONS, "the", "ein grüner Ring", "aaaa aaaa"]),
    max_size=4,
)


def distance(a, b):
    """Count the edits between two strings; a swap of neighbours is one edit.

    This is the optimal string alignment distance.
    """
    d = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(
                d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[-1, -1]


@settings(deadline=None)
@given(TEXTS, st.integers(0, 2**32), st.sampled_from(sorted(NOISES)))
def test_any_text_survives_and_only_seed_and_place_matter(captions, seed, name):
    noisy = NOISES[name](captions, seed)
    assert len(noisy) == len(captions) and all(isinstance(caption, str) for caption in noisy)
    assert all(
        after.strip() or not before.strip() for before, after in zip(captions, noisy, strict=True)
    )
    assert noisy == NOISES[name](captions, seed)
    assert noisy[:2] == NOISES[name](captions[:2], seed)  # whatever else is in the list
    for i in range(len(captions)):
        assert noisy[i] == NOISES[name]([""] * i + captions[i:], seed)[i]


@pytest.mark.parametrize("name", ["typo", "swap_words", "synonyms", "random_case"])
def test_seeds_and_places_differ(name):
    noise = NOISES[name]
    assert noise(CAPTIONS, 0) != noise(CAPTIONS, 1)
    assert len(set(noise(["a small red circle and a large blue star"] * 40, 0))) > 3


def test_typo_is_one_slip_in_one_word():
    noisy = NOISES["typo"](CAPTIONS, 0)
    assert [distance(*pair) for pair in zip(CAPTIONS, noisy, strict=True)] == [1] * 40
    changed = [
        [(a, b) for a, b in zip(x.split(), y.split(), strict=True) if a != b]
        for x, y in zip(CAPTIONS, noisy, strict=True)
    ]
    assert all(
        len(words) == 1 and len(words[0][0]) >= 4 and words[0][0][0] == words[0][1][0]
        for words in changed
    )
    lengths = Counter(len(b) - len(a) for ((a, b),) in changed)
    assert lengths.keys() == {-1, 0, 1}  # dropped, swapped, doubled
    assert NOISES["typo"](["a red box", "", "42 2024"], 0) == ["a red box", "", "42 2024"]
    assert NOISES["typo"](["aaaa"] * 40, 0).count("aaaa") == 0


def test_swapped_words_are_neighbours():
    for before, after in zip(CAPTIONS, NOISES["swap_words"](CAPTIONS, 0), strict=True):
        a, b = before.split(), after.split()
        places = [i for i in range(len(a)) if a[i] != b[i]]
        assert places[1] - places[0] == 1 and len(places) == 2 and Counter(a) == Counter(b)
    assert NOISES["swap_words"](["one", "", "so so so"], 0) == ["one", "", "so so so"]
    assert "so so big" not in NOISES["swap_words"](["so so big"] * 20, 0)


def test_articles_case_and_synonyms():
    caption = "a small red circle above the large blue Star"
    assert NOISES["drop_articles"]([caption, "A", "an owl"], 0) == [
        "small red circle above large blue Star",
        "A",
        "owl",
    ]
    assert NOISES["upper_case"]([caption], 0) == [caption.upper()]
    (mixed,) = NOISES["random_case"]([caption], 0)
    assert mixed.lower() == caption.lower() and mixed not in (caption.lower(), caption.upper())
    reworded = NOISES["synonyms"]([*CAPTIONS, "a small cat"], 0)
    assert reworded[-1] == "a small cat"
    for before, after in zip(CAPTIONS, reworded, strict=False):
        assert parse_caption(after) == parse_caption(before)  # it means the same
        assert not set(after.split()) & set(shapes.SYNONYMS)  # and no word of content is left


def test_pictures_with_noise():
    grey = np.full((2, 64, 64, 3), 128, np.uint8)
    for sigma in (8, 32):
        noisy = PICTURE_NOISES[f"grain_{sigma}"](grey, 0)
        assert noisy.dtype == np.uint8 and noisy.std() == pytest.approx(sigma, rel=0.03)
        assert noisy.mean() == pytest.approx(128, abs=1) and (noisy[0] != noisy[1]).any()
    for name in ("blur_1", "jpeg_30"):
        np.testing.assert_array_equal(PICTURE_NOISES[name](grey, 0), grey)  # nothing to lose
    spot = np.zeros((1, 15, 15, 3), np.uint8)
    spot[0, 7, 7] = 255
    x = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    expected = 255 * np.outer(x, x)[..., None] / x.sum() ** 2
    np.testing.assert_allclose(
        PICTURE_NOISES["blur_1"](spot, 0)[0, 3:12, 3:12], expected.repeat(3, -1), atol=0.5
    )
    lost = psnr(PICTURES, PICTURE_NOISES["jpeg_30"](PICTURES, 0))
    assert (lost > 5).all() and (lost < 20).all()


@pytest.mark.parametrize("name", PICTURE_NOISES)
def test_pictures_do_not_depend_on_one_another(name):
    noise = PICTURE_NOISES[name]
    noisy = noise(PICTURES, 7)
    assert noisy.shape == PICTURES.shape and noisy.dtype == np.uint8
    assert (noisy != PICTURES).any((1, 2, 3)).all()
    np.testing.assert_array_equal(noise(PICTURES[:2], 7), noisy[:2])
    other_first = np.concatenate([PICTURES[:1] // 2, PICTURES[1:]])
    np.testing.assert_array_equal(noise(other_first, 7)[1:], noisy[1:])


def test_noisy_captions_are_drawn_and_clean_ones_scored():
    """The model here returns the caption itself, so that a score can compare both."""

    def score(drawn, captions):
        assert captions == CAPTIONS
        return {"value": float(np.mean([a == b for a, b in zip(drawn, captions, strict=True)]))}

    reports = robustness.score_under_noise(lambda captions: captions, CAPTIONS, score, seed=3)
    assert list(reports) == ["clean", *NOISES] and reports["clean"] == {"value": 1.0}
    for name, noise in NOISES.items():
        assert reports[name] == score(noise(CAPTIONS, 3), CAPTIONS)
    assert reports["typo"] == reports["upper_case"] == {"value": 0.0}
    assert 0 < reports["drop_articles"]["value"] < 1  # captions that count have none
    seen = robustness.score_under_noise(
        lambda captions: captions, ["two big cats"], lambda drawn, _: drawn
    )
    # Noises that change nothing are left out.
    assert list(seen) == ["clean", "typo", "swap_words", "upper_case", "random_case"]
    with pytest.raises(ValueError, match="nothing to put noise on"):
        robustness.score_under_noise(None, [], None)


def test_reconstructions_of_noisy_pictures_are_compared_with_clean_ones():
    grey = np.full((3, 64, 64, 3), 128, np.uint8)
    grey[:, 0, 0] = 120  # so that every noise changes something
    same = robustness.reconstruction_under_noise(lambda x: x, grey, psnr, seed=1)
    assert list(same) == ["clean", *PICTURE_NOISES] and same["clean"] == float("inf")
    for sigma in (8, 32):
        assert same[f"grain_{sigma}"] == pytest.approx(20 * np.log10(255 / sigma), abs=0.3)
    constant = robustness.reconstruction_under_noise(np.zeros_like, grey, psnr)
    assert len(set(constant.values())) == 1  # a model that ignores its input
