"""One vector per class: equal for equal captions, a row of its own for no class."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.fields import defaults_of
from t2i_jax.text import classes
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder

CAPTIONS = [
    "a photo of a sneaker",
    "a photo of a bag",
    "",
    "A photo of a Bag ",
    "a photo of a dress",
] * 3


def encoder_of(**fields):
    sizes = {"vocab_size": 5, "width": 4, "length": 2}
    defaults = defaults_of(classes.fields(None))
    return make_encoder(ConfigDict({**defaults, "encoder": "classes", **sizes, **fields}))


def test_a_caption_is_a_row_of_the_table(tmp_path):
    encoder = encoder_of()
    encoder.make_tokenizer(CAPTIONS).save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizers.load(tmp_path / "tokenizer.json")
    captions = [" a PHOTO of a bag", "a photo of a dress", "a photo of a sneaker", "", "  "]
    text, num_cut = tokenizers.encode(tokenizer, captions, 2)
    assert num_cut == 0
    np.testing.assert_array_equal(text["tokens"], [[2, 1], [3, 1], [4, 1], [1, 0], [1, 0]])
    np.testing.assert_array_equal(text["mask"], [[True, True]] * 3 + [[True, False]] * 2)
    params, example = jax.jit(encoder.init, static_argnums=1)(jax.random.key(0), 2)
    table = params["embedding"]
    out = jax.jit(encoder.apply)(params, {}, text)
    assert (
        table.shape == (5, 4)
        and example.sequence.shape == (1, 2, 4)
        and example.pooled.shape == (1, 4)
    )
    np.testing.assert_array_equal(out.pooled, table[np.array([2, 3, 4, 1, 1])])
    np.testing.assert_array_equal(out.sequence[:4, 0], table[np.array([2, 3, 4, 1])])
    np.testing.assert_array_equal(out.mask, text["mask"])
    gradient = jax.jit(jax.grad(lambda params: encoder.apply(params, {}, text).pooled.sum()))(
        params
    )
    # Once for each caption that is the class.
    expected = np.outer([0, 2, 1, 1, 1], np.ones(4))
    np.testing.assert_array_equal(gradient["embedding"], expected)


def test_an_unknown_caption_is_an_error_that_names_the_classes():
    tokenizer = encoder_of().make_tokenizer(CAPTIONS)
    known = (
        "the 3 captions that this model knows as its classes: "
        "a photo of a bag, a photo of a dress, a photo of a sneaker"
    )
    for caption in ("a photo of a sneakr", "<|end|>", "<|pad|>"):
        with pytest.raises(ValueError, match=f"'{caption}' is none of {known}".replace("|", r"\|")):
            tokenizers.encode(tokenizer, ["a photo of a bag", "", caption], 2)
    with pytest.raises(ValueError, match="did you mean 'a photo of a sneaker'"):
        tokenizers.encode(tokenizer, ["a photo of a sneakr"], 2)


def test_more_classes_than_rows_are_refused():
    assert encoder_of().make_tokenizer(CAPTIONS).get_vocab_size() == 3
    with pytest.raises(
        ValueError, match=r"text\.vocab_size is 4, and there are 3 distinct captions: .* need 5"
    ):
        encoder_of(vocab_size=4).make_tokenizer(CAPTIONS)
    with pytest.raises(ValueError, match=r"text\.length is 1; a class takes 2"):
        encoder_of(length=1)
