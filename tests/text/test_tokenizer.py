"""Any string survives; captions are cut and counted; captions cannot hold special tokens."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from t2i_jax.text import tokenizer as tokenizers

CAPTIONS = [
    "a small red circle",
    "a large blue star above a small white ring",
    "two small green squares",
] * 20
TRAINED = tokenizers.train(CAPTIONS, 400)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_string_survives(text):
    encoded, cut = tokenizers.encode(TRAINED, [text], 400)
    assert cut == 0
    assert tokenizers.decode(TRAINED, encoded["tokens"]) == [text]


@pytest.mark.parametrize("text", ["<|end|>", "a <|pad|> b", "猫 über 🎨", "\x00\n\t", " a  b "])
def test_specials_and_scripts(text):
    encoded, _ = tokenizers.encode(TRAINED, [text], 64)
    assert (encoded["tokens"] == tokenizers.END).sum() == 1
    assert tokenizers.decode(TRAINED, encoded["tokens"]) == [text]


def test_shapes_masks_and_the_empty_caption():
    encoded, cut = tokenizers.encode(TRAINED, ["", "a small red circle"], 8)
    assert encoded["tokens"].dtype == np.int32 and cut == 0
    np.testing.assert_array_equal(encoded["tokens"][0], [tokenizers.END] + [tokenizers.PAD] * 7)
    np.testing.assert_array_equal(encoded["mask"].sum(1), [1, 5])  # four words and the end


def test_long_captions_are_cut_and_counted():
    encoded, cut = tokenizers.encode(TRAINED, ["a small red circle", "x" * 100], 5)
    assert cut == 1 and encoded["tokens"][1, -1] == tokenizers.END
    assert tokenizers.decode(TRAINED, encoded["tokens"]) == ["a small red circle", "xxxx"]


def test_training_is_deterministic_and_survives_the_disk(tmp_path):
    assert tokenizers.train(CAPTIONS, 400).to_str() == TRAINED.to_str()
    TRAINED.save(str(tmp_path / "tokenizer.json"))
    again = tokenizers.load(tmp_path / "tokenizer.json")
    for ours, theirs in zip(
        *(tokenizers.encode(t, ["<|end|> red"], 16)[0].values() for t in (TRAINED, again)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="at least 258"):
        tokenizers.train(CAPTIONS, 100)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*none\.json"):
        tokenizers.load(tmp_path / "none.json")


def test_a_file_without_a_post_processor_gets_the_default_one(tmp_path):
    """The first run folders had such files."""
    TRAINED.save(str(tmp_path / "tokenizer.json"))
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    assert stored.pop("post_processor")
    (tmp_path / "tokenizer.json").write_text(json.dumps({**stored, "post_processor": None}))
    again, _ = tokenizers.encode(tokenizers.load(tmp_path / "tokenizer.json"), ["a red star"], 8)
    np.testing.assert_array_equal(
        again["tokens"], tokenizers.encode(TRAINED, ["a red star"], 8)[0]["tokens"]
    )
    assert again["tokens"][0, again["mask"][0].sum() - 1] == tokenizers.END


def test_a_tokenizer_with_special_tokens_of_its_own():
    """Like BERT's: one token before, one after. Its settings of cutting and padding are ignored."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "red", "star", "[", "]", "sep"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.Lowercase(),
        pre_tokenizers.BertPreTokenizer(),
    )
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=99)
    encoded, cut = tokenizers.encode(
        tokenizers.standardise(tokenizer),
        ["a red star", "", "a [SEP] star", "a red red red star"],
        6,
    )
    expected = [[1, 4, 5, 6, 2, 0], [1, 2, 0, 0, 0, 0], [1, 4, 7, 9, 8, 2], [1, 4, 5, 5, 5, 2]]
    np.testing.assert_array_equal(encoded["tokens"], expected)
    np.testing.assert_array_equal(encoded["mask"].sum(1), [5, 2, 6, 6])
    assert cut == 2
    with pytest.raises(
        ValueError, match=r"text\.length is 1; the tokens around a caption alone are 2"
    ):
        tokenizers.encode(tokenizer, ["a"], 1)
