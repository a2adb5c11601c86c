"""The order is a pure function of seed and position; batches keep what belongs together."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.source import Source
from t2i_jax.data import loader
from t2i_jax.runs.columns import tokenise
from t2i_jax.text import tokenizer as tokenizers

CAPTIONS = [f"picture number {i}" for i in range(10)]


def source(read=None):
    pictures = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    return Source(CAPTIONS, read or (lambda index: pictures[index]), "f")


@pytest.fixture(scope="module")
def text():
    tokenizer = tokenizers.train(CAPTIONS, 300)
    config = ConfigDict({"encoder": "transformer", "length": 12, "vocab_size": 300})
    return tokenise(source(), tokenizer, config)[0]


def test_every_epoch_is_a_permutation_and_epochs_differ():
    order = loader.examples_at(7, np.arange(30), 10).reshape(3, 10)
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(10), (3, 1)))
    assert (order[0] != order[1]).any() and (order[1] != order[2]).any()
    correlation = np.corrcoef(loader.epoch_order(0, 0, 5000), loader.epoch_order(0, 1, 5000))[0, 1]
    assert abs(correlation) < 0.05
    assert (loader.examples_at(8, np.arange(30), 10) != order.ravel()).any()


def test_starting_anywhere_gives_the_same_batches(text):
    whole = list(loader.batches(source(), text, 4, 0, 0, 6))
    assert len(whole) == 6
    for first in (1, 4):
        for ours, theirs in zip(
            loader.batches(source(), text, 4, 0, first, 6), whole[first:], strict=True
        ):
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_batches_keep_pictures_and_captions_together(text):
    tokenizer = tokenizers.train(CAPTIONS, 300)
    for batch in loader.batches(source(), text, 4, 3, 0, 5):
        assert batch["image"].dtype == np.uint8 and batch["index"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["index"])
        assert set(batch) == {"image", "text", "index"}
        decoded = tokenizers.decode(tokenizer, batch["text"]["transformer"]["tokens"])
        assert decoded == [CAPTIONS[i] for i in batch["index"]]


def test_variants_are_tokenised_beforehand_and_stay_with_their_pictures():
    tokenizer = tokenizers.train(CAPTIONS, 300)
    config = ConfigDict({"encoder": "transformer", "length": 32, "vocab_size": 300})
    mirrored = [caption[::-1] for caption in CAPTIONS[:-1]] + ["x" * 32]
    texts, num_cut = tokenise(source(), tokenizer, config, {"flip": mirrored})
    assert num_cut == 1
    for batch in loader.batches(source(), texts, 4, 3, 0, 5):
        assert set(batch) == {"image", "text", "variants", "index"}
        unchanged, flipped = (
            tokenizers.decode(tokenizer, text["transformer"]["tokens"])
            for text in (batch["text"], batch["variants"]["flip"])
        )
        assert unchanged == [CAPTIONS[i] for i in batch["index"]]
        assert flipped == [mirrored[i][:31] for i in batch["index"]]


def test_a_failing_read_is_an_error_with_the_reason(text):
    def read(index):
        if 3 in index:
            raise OSError("photo3.jpg is gone")
        return np.zeros((len(index), 4, 4, 3), np.uint8)

    with pytest.raises(RuntimeError, match=r"photo3\.jpg is gone"):
        list(loader.batches(source(read), text, 5, 0, 0, 2))


def test_prefetch_keeps_order_and_loses_nothing():
    put = []
    taken = []
    for value in loader.prefetch(iter(range(7)), lambda x: put.append(x) or x * 10, 2):
        taken.append(value)
        assert len(put) >= min(len(taken) + 2, 7)
    assert taken == [0, 10, 20, 30, 40, 50, 60]
