"""Prompts in chunks: special tokens around each, the same number for all, weights by token."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.text import prompts
from tests.tiny_stable_diffusion import clip_tokenizer_in

LENGTH = 6  # of which 4 are of the prompt
TOWER = dict(vocab_size=514, length=LENGTH, end=513, width=4, depth=1, heads=1)
CONFIG = ConfigDict({"encoder": "clip", "length": LENGTH, "towers": {"one": TOWER}})
START, END = 512, 513


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Each letter is a token, and one at the end of a word another one."""
    return clip_tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


def read(tokenizer, *texts, emphasis=False):
    found, cut = prompts.encode_prompts(tokenizer, texts, CONFIG, emphasis)
    return found["clip"], cut


def test_a_prompt_that_fits_is_one_chunk(tokenizer):
    text, cut = read(tokenizer, "abc", "")
    (a, b, c), two = tokenizer.encode("abc", add_special_tokens=False).ids, [START, END]
    assert text.keys() == {"tokens", "mask"} and cut == 0
    assert text["tokens"].tolist() == [[START, a, b, c, END, 0], [*two, 0, 0, 0, 0]]
    assert text["mask"].sum(1).tolist() == [5, 2]


def test_a_longer_one_goes_on_in_further_chunks(tokenizer):
    ids = tokenizer.encode("abcdef", add_special_tokens=False).ids
    text, cut = read(tokenizer, "abcdef")
    first, second = [START, *ids[:4], END], [START, *ids[4:], END, 0, 0]
    assert text["tokens"].tolist() == [[*first, *second]] and cut == 0
    assert text["mask"].tolist() == [[True] * 10 + [False] * 2]


def test_all_get_the_same_number_of_chunks_by_repetition(tokenizer):
    together, _ = read(tokenizer, "ab", "abcdef", "abcdefghijk")
    alone = [read(tokenizer, text)[0] for text in ("ab", "abcdef", "abcdefghijk")]
    assert together["tokens"].shape == (3, 6 * LENGTH)
    for row, (one, times) in enumerate(zip(alone, (6, 3, 2), strict=True)):
        for name, x in one.items():
            np.testing.assert_array_equal(together[name][row], np.tile(x[0], times))


def test_what_is_more_than_four_chunks_is_cut(tokenizer):
    text, cut = read(tokenizer, "a" * 16, "a" * 17)
    assert cut == 1 and prompts.most_tokens(CONFIG) == text["tokens"].shape[1] == 4 * LENGTH
    assert (text["tokens"][0, :-2] == text["tokens"][1, :-2]).all()


def test_weights_belong_to_tokens(tokenizer):
    text, _ = read(tokenizer, "a (bcd:1.5) [ef]", emphasis=True)
    own = [*(1, 1, 1.5, 1.5, 1.5, 1), *(1, 1 / 1.1, 1 / 1.1, 1, 1, 1)]
    np.testing.assert_allclose(text["weight"], [own], rtol=1e-6)
    assert text["weight"].dtype == np.float32
    ids = tokenizer.encode("a bcd ef", add_special_tokens=False).ids
    assert text["tokens"][0].tolist() == [START, *ids[:4], END, START, *ids[4:], END, 0, 0]


def test_without_emphasis_brackets_are_text(tokenizer):
    text, _ = read(tokenizer, "(a)")
    plain = tokenizer.encode("(a)", add_special_tokens=False).ids
    assert text["tokens"][0].tolist() == [START, *plain, END, 0] and "weight" not in text


def test_further_captions(tokenizer):
    null = {"clip": {"tokens": np.arange(6), "mask": np.ones(6, bool), "other": 1}}
    others = {"negative": "abcde", "empty": ""}
    found = prompts.prompt_inputs(tokenizer, ["a", "b"], others, null, CONFIG)
    assert found.keys() == {"text", "negative", "empty"}
    long, _ = read(tokenizer, "abcde", "abcde")
    np.testing.assert_array_equal(found["negative"]["clip"]["tokens"], long["tokens"])
    assert found["empty"]["clip"].keys() == {"tokens", "mask"}
    np.testing.assert_array_equal(found["empty"]["clip"]["tokens"], [np.arange(6)] * 2)


def test_broken_text_is_refused(tokenizer):
    with pytest.raises(ValueError, match="is no Unicode text"):
        read(tokenizer, "a\ud800")
