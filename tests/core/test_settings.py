"""Defaults under given values, and flat views of nested settings."""

import pytest

from t2i_jax.core.settings import flatten, with_defaults


def test_with_defaults():
    """A whole number becomes a float where the default is one, so a later override may be 2.5."""
    found = with_defaults(
        {"guidance": 1.5, "steps": 8, "on": 0.5, "name": "a"},
        {"guidance": 2, "steps": 4, "on": True},
        "sample",
    )
    assert found == {"guidance": 2.0, "steps": 4, "on": True, "name": "a"}
    assert [type(found[name]) for name in ("guidance", "steps", "on")] == [float, int, bool]
    with pytest.raises(ValueError, match=r"sample\.step is unknown: sample has guidance, steps"):
        with_defaults({"guidance": 1.5, "steps": 8}, {"step": 1}, "sample")


def test_the_defaults_stay_as_they_are():
    defaults, given = {"steps": 8}, {"steps": 4}
    assert with_defaults(defaults, given, "sample") == {"steps": 4}
    assert defaults == {"steps": 8} and given == {"steps": 4}


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": None}, "e": [2, {"f": 3}]}) == {
        "a.b.c": 1,
        "a.d": None,
        "e": [2, {"f": 3}],  # only mappings are opened
    }


def test_flatten_drops_empty_mappings():
    assert flatten({}) == {}
    assert flatten({"a": {}, "b": {"c": {}}, "d": 1}) == {"d": 1}
