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
    assert params == {} and shapes[0] == shapes[1]
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


def test_nothing_is_trained_from_scratch():
    with pytest.raises(ValueError, match="convert them to a run"):
        clip.make(ConfigDict({"towers": {}})).make_tokenizer(["a"])
