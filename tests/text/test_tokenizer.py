"""Any string survives; captions are cut and counted; nothing in a caption can act as a special token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_jax.text import tokenizer as tokenizers

CAPTIONS = ["a small red circle", "a large blue star above a small white ring", "two small green squares"] * 20
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
    np.testing.assert_array_equal(encoded["mask"].sum(1), [1, 5])  # four learned words and the end


def test_long_captions_are_cut_and_counted():
    encoded, cut = tokenizers.encode(TRAINED, ["a small red circle", "x" * 100], 5)
    assert cut == 1 and encoded["tokens"][1, -1] == tokenizers.END
    assert tokenizers.decode(TRAINED, encoded["tokens"]) == ["a small red circle", "xxxx"]


def test_training_is_deterministic_and_survives_the_disk(tmp_path):
    assert tokenizers.train(CAPTIONS, 400).to_str() == TRAINED.to_str()
    TRAINED.save(str(tmp_path / "tokenizer.json"))
    again = tokenizers.load(tmp_path / "tokenizer.json")
    for ours, theirs in zip(*(tokenizers.encode(t, ["<|end|> red"], 16)[0].values() for t in (TRAINED, again)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="at least 258"):
        tokenizers.train(CAPTIONS, 100)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*none\.json"):
        tokenizers.load(tmp_path / "none.json")
