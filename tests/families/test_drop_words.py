"""Words that are left out of captions in training."""

import jax
import numpy as np
from ml_collections import ConfigDict

from t2i_jax.families.conditioning import drop_words
from t2i_jax.text.encoder import make_encoder

LENGTH = 6


def text(rows=4000, words=4):
    """Return captions of so many tokens, padded: 1, 2, 3, ... and zeros."""
    mask = np.broadcast_to(np.arange(LENGTH) < words, (rows, LENGTH))
    return {"tokens": np.where(mask, np.arange(1, LENGTH + 1), 0), "mask": mask}


def kept_tokens(after) -> list[list[int]]:
    tokens, mask = np.asarray(after["tokens"]), np.asarray(after["mask"])
    return [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]


def test_tokens_are_left_out_at_the_rate_and_the_others_keep_their_order():
    keys = jax.random.split(jax.random.key(0), 4000)
    kept = kept_tokens(drop_words(text(), keys, 0.3))
    assert all(row == sorted(row) and set(row) <= {1, 2, 3, 4} for row in kept)
    shares = [np.mean([token in row for row in kept]) for token in (1, 2, 3, 4)]
    # A caption that loses all four tokens keeps them.
    np.testing.assert_allclose(shares, 0.7 + 0.3**4, atol=0.03)
    assert len({tuple(row) for row in kept}) == 2**4 - 1


def test_padding_stands_at_the_end_and_vectors_move_with_their_tokens():
    keys = jax.random.split(jax.random.key(3), 50)
    before = text(50)
    before["features"] = np.stack([before["tokens"], -before["tokens"]], axis=-1)
    after = {name: np.asarray(x) for name, x in drop_words(before, keys, 0.5).items()}
    assert (after["mask"][:, :-1] >= after["mask"][:, 1:]).all()
    assert (after["mask"].sum(1) < 4).any()
    np.testing.assert_array_equal(after["features"][..., 0], after["tokens"])
    np.testing.assert_array_equal(after["features"][..., 1], -after["tokens"])


def test_an_encoder_reads_the_caption_without_the_words():
    """A recurrent encoder reads as many tokens as the mask has, from the first one on."""
    fields = {"encoder": "recurrent", "cell": "gru", "width": 8, "vocab_size": 8, "dropout": 0.0}
    encoder = make_encoder(ConfigDict({**fields, "length": LENGTH}))
    params, _ = jax.jit(encoder.init, static_argnums=1)(jax.random.key(0), LENGTH)
    after = drop_words(text(8), jax.random.split(jax.random.key(4), 8), 0.5)
    kept = kept_tokens(after)
    assert any(row not in ([1], [1, 2], [1, 2, 3], [1, 2, 3, 4]) for row in kept)
    shorter = {
        "tokens": np.array([row + [0] * (LENGTH - len(row)) for row in kept]),
        "mask": np.array([[i < len(row) for i in range(LENGTH)] for row in kept]),
    }
    apply = jax.jit(encoder.apply)
    found, expected = apply(params, {}, after), apply(params, {}, shorter)
    np.testing.assert_allclose(found.pooled, expected.pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.sequence, expected.sequence, rtol=1e-5, atol=1e-6)


def test_no_caption_loses_all_tokens_and_a_single_word_stays():
    keys = jax.random.split(jax.random.key(1), 500)
    assert np.asarray(drop_words(text(500), keys, 0.9)["mask"]).any(1).all()
    one = text(500, words=1)
    np.testing.assert_array_equal(drop_words(one, keys, 0.9)["mask"], one["mask"])
    empty = text(500, words=0)
    assert not np.asarray(drop_words(empty, keys, 0.5)["mask"]).any()


def test_the_choice_is_each_examples_own():
    before, keys = text(8), jax.random.split(jax.random.key(2), 8)
    whole = kept_tokens(drop_words(before, keys, 0.5))
    half = drop_words({name: x[4:] for name, x in before.items()}, keys[4:], 0.5)
    assert whole[4:] == kept_tokens(half)
    assert drop_words(before, keys, 0.0) is before
