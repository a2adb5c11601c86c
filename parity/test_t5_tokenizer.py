"""T5's tokenizer against transformers' T5Tokenizer, with a small vocabulary."""

import numpy as np
import pytest

from parity.tiny_tokenizer import learn_t5
from t2i_jax.text import t5_tokenizer

CAPTIONS = [
    "a large red circle above a small blue square",
    "",
    "It's  the\tSECOND of 2024's 12 cafés — naïve, isn't it?!",
    " 日本語 text 🦊 </s> and <pad>",
    "a red circle " * 20,  # longer than 32 tokens
]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Return (a folder with a tokenizer.json, the original)."""
    tokenizer = learn_t5(CAPTIONS, 150)
    folder = tmp_path_factory.mktemp("t5")
    tokenizer.save_pretrained(folder)
    return folder, tokenizer


def test_tokens(published):
    folder, theirs = published
    expected = theirs(
        CAPTIONS, padding="max_length", truncation=True, max_length=32, return_tensors="np"
    )["input_ids"]
    assert len({tuple(row) for row in expected}) == len(CAPTIONS) and (expected[-1] > 1)[:31].all()
    ours = t5_tokenizer.load(folder)
    np.testing.assert_array_equal(t5_tokenizer.encode(ours, CAPTIONS, 32), expected)
