"""Captions as the tokens of two tokenizers, one after the other."""

import numpy as np

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.joint_tokenizer import JointTokenizer

CAPTIONS = ["a red circle", "two small blue squares", ""]
FIRST, SECOND = tokenizers.train(CAPTIONS, 300), tokenizers.train(["a very red fox"], 280)


def test_tokens_are_those_of_each(tmp_path):
    joint = JointTokenizer([FIRST, SECOND], [5])
    text, cut = tokenizers.encode(joint, CAPTIONS, 12)
    one, cut_by_first = tokenizers.encode(FIRST, CAPTIONS, 5)
    two, cut_by_second = tokenizers.encode(SECOND, CAPTIONS, 7)
    for name in ("tokens", "mask"):
        np.testing.assert_array_equal(text[name][:, :5], one[name])
        np.testing.assert_array_equal(text[name][:, 5:], two[name])
    assert (cut_by_first, cut_by_second, cut) == (0, 2, 0), "one tokenizer had each as a whole"
    path = tmp_path / "tokenizer.json"
    path.write_text(joint.to_str(), encoding="utf-8")
    again, _ = tokenizers.encode(tokenizers.load(path), CAPTIONS, 12)
    np.testing.assert_array_equal(again["tokens"], text["tokens"])
