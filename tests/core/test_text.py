"""Every text encoder keeps the contract of core/text.py: those found by file name."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.fields import Field, defaults_of
from t2i_jax.core.registry import lookup, names_with
from t2i_jax.core.text import TextCondition, TextEncoder

NAMES = names_with("text", "make")


def check_fields(fields):
    """Check that each field has a meaning, and a default that it allows."""
    for name, field in fields.items():
        assert isinstance(field, Field) and field.meaning, name
        for value in field.default if isinstance(field.default, tuple) else (field.default,):
            assert field.low is None or field.low <= value, name
            assert field.high is None or value <= field.high, name
            assert not field.choices or value in field.choices, name


def test_the_encoders():
    assert set(NAMES) >= {"classes", "language_model", "minilm", "none", "recurrent", "transformer"}
    assert names_with("text", "fields") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_describes_its_fields(name):
    fields = lookup("text", name, "fields")(ConfigDict({"encoder": name}))
    check_fields(fields)
    assert fields["length"].default == 16 and "encoder" not in fields


@pytest.mark.parametrize("name", sorted({*NAMES} - {"minilm", "static_minilm", "clip", "clip_t5"}))
def test_the_default_encoder_gives_the_shapes_of_a_condition(name):
    """The pretrained encoders have tests of their own (tests/text)."""
    config = ConfigDict(defaults_of(lookup("text", name, "fields")(ConfigDict())))
    encoder = lookup("text", name)(config)
    assert isinstance(encoder, TextEncoder)
    params, example = jax.eval_shape(lambda: encoder.init(jax.random.key(0), config.length))
    text = {
        "tokens": np.ones((3, config.length), np.int32),
        "mask": np.ones((3, config.length), bool),
    }
    keys = jax.random.split(jax.random.key(0), 3)
    for out, count in ((example, 1), (jax.eval_shape(encoder.apply, params, {}, text, keys), 3)):
        assert isinstance(out, TextCondition) and out.vector is None
        assert out.sequence.shape[:2] == out.mask.shape == (count, config.length)
        assert out.pooled.shape == (count, out.sequence.shape[2])
