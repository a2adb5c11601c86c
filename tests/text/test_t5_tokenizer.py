"""T5's tokenizer on a small vocabulary, by hand. Agreement with the original: parity/."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from t2i_jax.text import t5_tokenizer
from t2i_jax.text.t5_tokenizer import encode

VOCAB = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁b", "a", "b", "ab"]


@pytest.fixture
def folder(tmp_path):
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in VOCAB], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(VOCAB[:3])
    # Published files have settings of their own.
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_tokens(folder):
    rows = encode(t5_tokenizer.load(folder), ["a b", "", "ba?", "a b a b a b a"], 6)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(
        rows,
        [
            [4, 5, 1, 0, 0, 0],
            [1, 0, 0, 0, 0, 0],
            [5, 6, 2, 1, 0, 0],
            [4, 5, 4, 5, 4, 1],  # cut, and still ended
        ],
    )


def test_bad_input(folder):
    (folder / "tokenizer.json").rename(folder / "other.json")
    with pytest.raises(FileNotFoundError, match=r"no tokenizer.json in .*; add the tokenizer"):
        t5_tokenizer.load(folder)
    (folder / "spiece.model").touch()
    with pytest.raises(FileNotFoundError, match=r"its spiece.model is not read; add the tokenizer"):
        t5_tokenizer.load(folder)
    Tokenizer(models.Unigram([("a", -1.0)])).save(str(folder / "tokenizer.json"))
    with pytest.raises(ValueError, match="is not T5's: token 0 is not <pad>"):
        t5_tokenizer.load(folder)
