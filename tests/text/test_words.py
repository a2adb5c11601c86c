"""Words of a caption, and the tokens that they are made of."""

import pytest

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.joint_tokenizer import JointTokenizer
from t2i_jax.text.words import words_of

CAPTIONS = ["a small red circle", "two large blue stars"] * 9
TOKENIZER = tokenizers.train(CAPTIONS, 300)


def test_each_token_of_a_caption_belongs_to_one_word():
    for caption in (CAPTIONS[0], "  two   large,zebras\tred "):
        words = words_of(TOKENIZER, caption, 64)
        assert [word.text for word in words] == caption.split()
        encoding = TOKENIZER.encode(caption)
        for word in words:
            said = TOKENIZER.decode([encoding.ids[i] for i in word.places])
            assert said.strip() == word.text
        places = [i for word in words for i in word.places]
        assert places == sorted(set(places))


def test_a_known_word_is_one_token_and_an_unknown_one_several():
    words = words_of(TOKENIZER, "a small zebra", 64)
    assert [word.places for word in words[:2]] == [(0,), (1,)] and len(words[2].places) > 1


def test_words_that_are_cut_are_left_out():
    words = words_of(TOKENIZER, "a small red circle", 4)  # the last place is the end token
    assert [word.text for word in words] == ["a", "small", "red"]


def test_a_caption_without_a_word_is_refused():
    for caption in ("", "  "):
        with pytest.raises(ValueError, match="has no word"):
            words_of(TOKENIZER, caption, 8)


def test_a_joint_tokenizer_is_refused():
    joint = JointTokenizer([TOKENIZER, TOKENIZER], [4, 4])
    with pytest.raises(ValueError, match="several tokenizers"):
        words_of(joint, "a", 8)
