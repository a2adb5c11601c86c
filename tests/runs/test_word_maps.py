"""Word maps of words from those of tokens, and their overlay."""

import numpy as np

from t2i_jax.runs.word_maps import COLUMNS, GAP_PX, LINE_PX, PANEL_PX, heat_colours, of_words
from t2i_jax.text.words import Word


def test_the_map_of_a_word_is_the_mean_of_its_tokens():
    maps = np.random.default_rng(0).random((4, 2, 2))
    found = of_words(np.zeros((8, 8, 3), np.uint8), [Word("a", (0,)), Word("zebra", (1, 3))], maps)
    assert found.words == ["a", "zebra"]
    np.testing.assert_allclose(found.maps, [maps[0], (maps[1] + maps[3]) / 2])


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    found = heat_colours(np.array([0.0, 1 / 3, 2 / 3, 1.0]))
    np.testing.assert_allclose(found, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], atol=1e-6)


def test_the_overlay_is_brightest_where_the_word_is():
    """One panel for the picture as it is, and one for each word, in rows of COLUMNS."""
    image = np.full((8, 8, 3), 100, np.uint8)
    maps = np.zeros((COLUMNS, 4, 4))
    maps[:, 0, 3] = 0.5
    words = [Word(f"w{i}", (i,)) for i in range(COLUMNS)]
    page = np.asarray(of_words(image, words, maps).overlay()).astype(int)
    wide, high = PANEL_PX + GAP_PX, PANEL_PX + LINE_PX + GAP_PX
    assert page.shape == (2 * high + GAP_PX, COLUMNS * wide + GAP_PX, 3)

    def panel(i):
        left, top = GAP_PX + i % COLUMNS * wide, GAP_PX + i // COLUMNS * high
        return page[top : top + PANEL_PX, left : left + PANEL_PX]

    assert (panel(0) == 100).all()
    for i in range(1, COLUMNS + 1):
        assert (panel(i)[:5, -5:] == 0.4 * 100 + 0.6 * 255).all()  # white over grey
        assert (panel(i)[-80:, :80] == 0.4 * 100).all()  # black over grey
