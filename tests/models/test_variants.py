"""The fields of a variant, and what a config overrides."""

import pytest

from t2i_jax.models.variants import fields_of

VARIANTS = {"S": {"width": 8, "depth": 2}}


def test_fields_of_a_variant():
    assert fields_of({"network": "dit", "variant": "S", "depth": 5}, VARIANTS) == {
        "width": 8,
        "depth": 5,
    }
    assert fields_of({"network": "dit", "width": 3}, VARIANTS) == {"width": 3}
    with pytest.raises(ValueError, match="no variant 'M': there are S"):
        fields_of({"variant": "M"}, VARIANTS)
