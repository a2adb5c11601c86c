"""Words of a caption, and the tokens that they are made of."""

import pytest
from tokenizers import Tokenizer

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


def test_each_vector_of_a_learned_token_is_a_word():
    """`<cat>` is encoded as its two vectors, so the words after it are where the tokens are."""
    tokenizer = Tokenizer.from_str(TOKENIZER.to_str())
    tokenizer.add_tokens(["<cat>", "<cat>_1"])
    words = words_of(tokenizer, "a <cat> red", 8)
    assert [word.text for word in words] == ["a", "<cat>", "<cat>_1", "red"]
    rows = tokenizers.encode(tokenizer, ["a <cat> red"], 8)[0]["tokens"][0]
    found = [[tokenizer.id_to_token(int(rows[i])) for i in word.places] for word in words]
    assert found[1:3] == [["<cat>"], ["<cat>_1"]]
    assert "red" in "".join(found[3])


def test_a_caption_without_a_word_is_refused():
    for caption in ("", "  "):
        with pytest.raises(ValueError, match="has no word"):
            words_of(TOKENIZER, caption, 8)


def test_a_joint_tokenizer_is_refused():
    joint = JointTokenizer([TOKENIZER, TOKENIZER], [4, 4])
    with pytest.raises(ValueError, match="several tokenizers"):
        words_of(joint, "a", 8)
