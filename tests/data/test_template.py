"""A name in a template, with the right article."""

import pytest

from t2i_jax.data import template


@pytest.mark.parametrize(
    ("pattern", "name", "caption"),
    [
        ("a photo of a {}", "sneaker", "a photo of a sneaker"),
        ("a photo of a {}", "ankle boot", "a photo of an ankle boot"),
        ("A {} on a table", "Apple", "An Apple on a table"),
        ("the digit {}", "8", "the digit 8"),
        ("extra {}", "apple", "extra apple"),
        ("a {}, a {}", "owl", "an owl, an owl"),
    ],
)
def test_fill(pattern, name, caption):
    assert template.fill(pattern, name) == caption


def test_a_template_without_braces_is_an_error():
    with pytest.raises(ValueError, match=r"'a photo' has no \{\} for the name of the class"):
        template.fill("a photo", "shirt")
