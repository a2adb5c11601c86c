"""CLIP's text encoders as a condition. Agreement with the originals is tested in parity/."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.models.clip import text_param_shapes
from t2i_jax.text import clip
from tests.tiny_stable_diffusion import random_params

TOWER = dict(vocab_size=20, length=8, end=19, width=16, depth=2, heads=2)
TOKENS = np.array([[18, 3, 4, 19, 0, 0], [18, 5, 19, 0, 0, 0]], np.int32)
TEXT = {"tokens": TOKENS, "mask": TOKENS > 0}


def encode(text, **towers):
    config = ConfigDict({"encoder": "clip", "length": 6, "towers": towers})
    made = {name: clip.make_tower(fields)[0] for name, fields in towers.items()}
    frozen = {name: random_params(text_param_shapes(net), 0) for name, net in made.items()}
    encoder = clip.make(config)
    params, example = encoder.init(jax.random.key(0), 6)
    found = encoder.apply(params, frozen, text)
    shapes = [[x.shape[1:] for x in each[:3]] for each in (example, found)]
    assert params == {} and (shapes[0] == shapes[1] or text["mask"].shape[1] > 6)
    return found


def test_two_towers_stand_side_by_side_and_the_last_one_gives_the_pooled_vector():
    wide = {**TOWER, "width": 24, "projection": 5, "hidden": -2, "pad": 0}
    both = encode(TEXT, one=TOWER, two=wide)
    one, two = encode(TEXT, one=TOWER), encode(TEXT, two=wide)
    np.testing.assert_array_equal(both.sequence[..., :16], one.sequence)
    np.testing.assert_array_equal(both.sequence[..., 16:], two.sequence)
    np.testing.assert_array_equal(both.pooled, two.pooled)


def test_the_token_that_fills_up_has_an_influence_on_its_own_place_alone():
    """The tower is causal."""
    end, other = (encode(TEXT, one={**TOWER, "pad": pad}) for pad in (19, 7))
    same = (np.asarray(end.sequence) == other.sequence).all(-1)
    np.testing.assert_array_equal(same, TEXT["mask"])
    np.testing.assert_array_equal(end.pooled, other.pooled)


def test_hidden_states():
    last, before = (encode(TEXT, one={**TOWER, "hidden": hidden}) for hidden in (-1, -2))
    assert (np.asarray(last.sequence) != before.sequence).any(-1).all()


def test_a_text_without_tokens_is_zeros():
    none = {"tokens": 0 * TOKENS, "mask": np.array([[True] * 3 + [False] * 3, [False] * 6])}
    found = encode(none, one=TOWER)
    assert not found.sequence[1].any() and not found.pooled[1].any()
    assert np.abs(found.sequence[0]).min(0).any() and found.pooled[0].any()


def test_chunks_are_encoded_one_by_one():
    """The sequences follow one another; the pooled vector is that of the first."""
    both = {name: np.concatenate([x[:1], x[1:]], axis=1) for name, x in TEXT.items()}
    found, alone = encode(both, one=TOWER), encode(TEXT, one=TOWER)
    np.testing.assert_allclose(found.sequence[0], np.concatenate(alone.sequence), atol=1e-6)
    np.testing.assert_allclose(found.pooled[0], alone.pooled[0], atol=1e-6)
    np.testing.assert_array_equal(found.mask, both["mask"])


def test_weights_multiply_and_the_mean_stays():
    weight = np.ones((2, 6), np.float32)
    wide = {**TOWER, "width": 24, "hidden": -2}
    plain = encode(TEXT, one=TOWER, two=wide)
    same = encode({**TEXT, "weight": weight}, one=TOWER, two=wide)
    np.testing.assert_allclose(same.sequence, plain.sequence, rtol=1e-6)
    weight[0, 1:3] = 1.5, -0.5
    found = encode({**TEXT, "weight": weight}, one=TOWER, two=wide)
    np.testing.assert_allclose(found.sequence[1], plain.sequence[1], rtol=1e-6)
    for own in (np.s_[:16], np.s_[16:]):  # tower by tower
        before, after = (np.asarray(x.sequence[0, :, own]) for x in (plain, found))
        assert after.mean() == pytest.approx(before.mean(), rel=1e-4)
        ratio = after / before
        np.testing.assert_allclose(
            ratio / ratio[0, 0], weight[0][:, None] * np.ones(16 if own.stop else 24), rtol=1e-5
        )
    np.testing.assert_array_equal(found.pooled, plain.pooled)


def test_what_is_learned_is_added_to_the_last_rows_of_tokens():
    config = ConfigDict({"encoder": "clip", "length": 6, "towers": {"one": TOWER}})
    config.update(learn="<it>", vectors=2)
    encoder = clip.make(config)
    net = clip.make_towers(config)["one"][0]
    assert net.vocab_size == TOWER["vocab_size"] + 2
    frozen = {"one": random_params(text_param_shapes(net), 0)}
    params, _ = encoder.init(jax.random.key(0), 6)
    assert jax.tree.map(np.shape, params) == {"one": {"learned": (2, 16)}}
    learned = {"one": {"learned": np.random.default_rng(1).normal(size=(2, 16))}}
    table = frozen["one"]["embed"]["embedding"].copy()
    table[-2:] += learned["one"]["learned"]
    text = {**TEXT, "tokens": np.where(TOKENS == 4, 21, TOKENS)}
    found = encoder.apply(learned, frozen, text).sequence
    expected = encoder.apply({}, {"one": {**frozen["one"], "embed": {"embedding": table}}}, text)
    np.testing.assert_allclose(found, expected.sequence, atol=1e-6)
    plain = encoder.apply(params, frozen, text).sequence
    assert np.abs(found - plain)[0, 2:].max(-1).min() > 0.1
    np.testing.assert_allclose(found[0, :2], plain[0, :2], atol=1e-6)


def test_nothing_is_trained_from_scratch():
    with pytest.raises(ValueError, match="convert them to a run"):
        clip.make(ConfigDict({"towers": {}})).make_tokenizer(["a"])
