"""CLIP's tokenizer on a small vocabulary, by hand. Agreement with the original: parity/."""

import json

import numpy as np
import pytest

from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip_tokenizer import END, START, encode

VOCAB = {
    token: i for i, token in enumerate([*"abc", *(f"{c}</w>" for c in "abc"), "ab", START, END])
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(VOCAB))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    return tmp_path


def test_tokens(folder):
    rows = encode(clip_tokenizer.load(folder), ["A\t C  ", "", "abc", "c b a b c a b c a"], 8)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(
        rows,
        [
            [7, 3, 5, 8, 8, 8, 8, 8],
            [7, 8, 8, 8, 8, 8, 8, 8],
            [7, 6, 5, 8, 8, 8, 8, 8],  # a merge, and the letter that ends the word
            [7, 5, 4, 3, 4, 5, 3, 8],  # cut, and still ended
        ],
    )


def test_special_tokens_in_a_caption_do_not_end_it(folder):
    expected = [7, 3, 4, 8, 8, 8]
    tokenizer = clip_tokenizer.load(folder)
    assert encode(tokenizer, [f"a {END} b"], 6)[0].tolist() == expected
    # As in published files, which have settings of their own.
    tokenizer.add_special_tokens([START, END])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.encode_special_tokens = False
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "merges.txt").unlink()
    tokenizer = clip_tokenizer.load(folder)
    assert encode(tokenizer, [f"a {END} b"], 6)[0].tolist() == expected
    assert encode(tokenizer, ["a b c a b"], 9)[0].tolist() == [7, 3, 4, 5, 3, 4, 8, 8, 8]


def test_bad_input(folder):
    with pytest.raises(
        FileNotFoundError,
        match=r"no tokenizer in .*: it needs a tokenizer.json, or a vocab.json and a merges",
    ):
        clip_tokenizer.load(folder / "nowhere")
    (folder / "vocab.json").write_text(json.dumps({"a": 0, "b": 1, "ab": 2}))
    with pytest.raises(ValueError, match=r"its vocabulary has no <\|startoftext\|>"):
        clip_tokenizer.load(folder)


def test_a_tokenizer_is_learned_from_captions():
    """It has the size that is asked for, START and END last, and a token for a frequent word."""
    captions = ["ringed planet, flat drawing", "Cat's face, flat drawing"] * 2
    tokenizer = clip_tokenizer.learn(captions, 530)
    vocab = tokenizer.get_vocab()
    assert sorted(vocab.values()) == list(range(530))
    assert (vocab[START], vocab[END]) == (528, 529) and "flat</w>" in vocab
    rows = encode(tokenizer, ["flat", "FLAT drawing", "\u4f60 z", f"a {END}"], 24)
    assert rows[0].tolist() == [528, vocab["flat</w>"]] + [529] * 22
    assert rows[1, 1] == vocab["flat</w>"]
    ends = (rows != 529).sum(1)
    assert ends[2] == 5 and (rows[3, : ends[3]] < 528).sum() == ends[3] - 1  # END as letters
    with pytest.raises(ValueError, match=r"give \d{3} tokens, and not 2000: ask for fewer"):
        clip_tokenizer.learn(captions, 2000)
