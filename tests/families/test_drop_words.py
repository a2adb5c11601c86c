"""Words that are left out of captions in training."""

import jax
import numpy as np

from t2i_jax.families.conditioning import drop_words


def text(rows=4000, length=6, words=4):
    """Return captions of so many tokens, padded."""
    mask = np.broadcast_to(np.arange(length) < words, (rows, length))
    return {"tokens": np.arange(rows * length).reshape(rows, length), "mask": mask}


def test_tokens_are_left_out_at_the_rate_and_padding_stays_padding():
    before, keys = text(), jax.random.split(jax.random.key(0), 4000)
    after = drop_words(before, keys, 0.3)
    np.testing.assert_array_equal(after["tokens"], before["tokens"])
    mask = np.asarray(after["mask"])
    assert not mask[:, 4:].any()
    # A caption that loses all four tokens keeps them.
    np.testing.assert_allclose(mask[:, :4].mean(0), 0.7 + 0.3**4, atol=0.03)
    assert len(np.unique(mask, axis=0)) == 2**4 - 1


def test_no_caption_loses_all_tokens_and_a_single_word_stays():
    keys = jax.random.split(jax.random.key(1), 500)
    assert np.asarray(drop_words(text(500), keys, 0.9)["mask"]).any(1).all()
    one = text(500, words=1)
    np.testing.assert_array_equal(drop_words(one, keys, 0.9)["mask"], one["mask"])
    empty = text(500, words=0)
    assert not np.asarray(drop_words(empty, keys, 0.5)["mask"]).any()


def test_the_choice_is_each_examples_own():
    before, keys = text(8), jax.random.split(jax.random.key(2), 8)
    whole = np.asarray(drop_words(before, keys, 0.5)["mask"])
    half = drop_words({name: x[4:] for name, x in before.items()}, keys[4:], 0.5)
    np.testing.assert_array_equal(whole[4:], half["mask"])
    assert drop_words(before, keys, 0.0) is before
