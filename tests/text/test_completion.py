"""Texts by a tiny random language model, against the whole text at once without caches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from t2i_jax.models.transformer import Transformer
from t2i_jax.text import completion

WIDTH = 16
TRUNK = Transformer(2, 4, block={"rope": 100.0, "kv_heads": 2, "qk_norm": False, "mlp": "swiglu"})


def make_tokenizer(merges=()):
    """One token a byte-level letter, one for each of `merges`, and an end token."""
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    tokenizer = Tokenizer(models.BPE({each: i for i, each in enumerate(letters)}, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


@pytest.fixture(scope="module")
def both():
    return random_model(make_tokenizer())


def random_model(tokenizer):
    """See `make`."""
    rng = np.random.default_rng(0)
    x, mask = jnp.zeros((1, 1, WIDTH)), jnp.ones((1, 1), bool)
    shapes = jax.eval_shape(TRUNK.init, jax.random.key(0), x, mask)["params"]
    trunk = jax.tree.map(lambda a: rng.normal(0, 0.5, a.shape).astype(np.float32), shapes)
    embedding = rng.normal(0, 0.7, (tokenizer.get_vocab_size(), WIDTH)).astype(np.float32)
    return make("tiny", tokenizer, embedding, trunk)


def make(name, tokenizer, embedding, trunk):
    """A model, and (beside it, for the tests) its parameters as the transformer takes them."""
    fields = {"model": {"depth": 2, "heads": 4, "block": dict(TRUNK.block)}}
    params = {"text": {"embed": {"embedding": embedding}}, "trunk": trunk}
    return completion.make_model(name, tokenizer, fields, params), params


@jax.jit
def uncached(params, tokens):
    """The log-probabilities of the token after each of `tokens`, int [N], computed all at once."""
    mask = jnp.tri(len(tokens), dtype=bool)[None, None]
    embedding = params["text"]["embed"]["embedding"]
    x, _ = TRUNK.apply({"params": params["trunk"]}, embedding[tokens][None], mask)
    return jax.nn.log_softmax(x[0] @ embedding.T)


def log_probs_of(params, tokens) -> np.ndarray:
    """The log-probabilities of the token after each token. What pads them comes later."""
    padded = np.zeros(64, int)
    padded[: len(tokens)] = tokens
    return np.asarray(uncached(params, padded))[: len(tokens)]


def test_the_next_token_is_that_of_the_whole_text(both):
    model, params = both
    first, texts = "the small red", [" ring", "s", " circle and a star", " x"]
    begun = completion.start(model, first, room=32)
    found = completion.next_log_probs(model, begun, texts)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-5)
    for text, log_probs in zip(texts, found, strict=True):
        tokens = model.tokenizer.encode(first + text).ids
        np.testing.assert_allclose(log_probs, log_probs_of(params, tokens)[-1], atol=1e-3)
    assert np.ptp(found, axis=0).max() > 1  # they differ
    # The order and the number of the texts change nothing.
    again = completion.next_log_probs(model, begun, texts[::-1][:3])
    np.testing.assert_allclose(again, found[::-1][:3], atol=1e-4)


def test_a_text_goes_on_with_the_most_likely_letters(both):
    model, params = both
    begun = completion.start(model, "the ", room=64)
    text = completion.complete(model, begun, "small", most=6)
    tokens = model.tokenizer.encode("the small").ids
    for _ in range(6):
        tokens.append(int(log_probs_of(params, tokens)[-1].argmax()))
    assert text == model.tokenizer.decode(tokens[9:]).partition("\n")[0].strip() and text
    assert completion.complete(model, begun, "small", most=6) == text


def test_a_text_ends_with_its_line(both):
    """With an output that always prefers the line break, nothing is written."""
    model, params = both
    embedding = np.full_like(params["text"]["embed"]["embedding"], 0.1)
    embedding[model.tokenizer.encode("\n").ids[0]] = 1.0
    trunk = jax.tree.map(np.zeros_like, params["trunk"])
    trunk["norm"] = {"scale": np.ones(WIDTH, np.float32)}
    other, _ = make("other", model.tokenizer, embedding, trunk)
    assert completion.complete(other, completion.start(other, "a", room=64), "b", most=5) == ""


def test_texts_without_tokens_or_with_too_many_are_refused(both):
    model = both[0]
    for text in ("", "a" * 1000):
        with pytest.raises(ValueError, match=f"a text of {len(text)} tokens"):
            completion.start(model, text, room=64)
        with pytest.raises(ValueError, match=f"a text of {len(text)} tokens"):
            completion.complete(model, completion.start(model, "a", room=64), text, most=4)


@pytest.mark.parametrize("count", [61, 65, 1000])
def test_a_text_longer_than_the_room_is_refused(both, count):
    """The caches of one token have room for 32 + 32, so 63 more: 60 in steps of 4."""
    begun = completion.start(both[0], "a", room=32)
    with pytest.raises(ValueError, match=f"a text of {count} tokens: there can be at most 60"):
        completion.next_log_probs(both[0], begun, ["b", "a" * count])
    (fits,) = completion.next_log_probs(both[0], begun, ["a" * 60])
    whole = log_probs_of(both[1], both[0].tokenizer.encode("a" * 61).ids)
    np.testing.assert_allclose(fits, whole[-1], atol=1e-3)
