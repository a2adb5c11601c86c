"""The file name is the registry."""

import pytest

from t2i_jax.by_name import make_of


def test_finds_make_by_file_name():
    assert make_of("families", "flow").__module__ == "t2i_jax.families.flow"


@pytest.mark.parametrize(
    ("folder", "name", "near"),
    [("families", "flwo", "flow"), ("data", "shape", "shapes"), ("text", "transfromer", "transformer")],
)
def test_names_the_nearest(folder, name, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        make_of(folder, name)


def test_files_without_make_are_not_choices():
    with pytest.raises(ValueError, match="there are") as error:
        make_of("families", "family")
    assert "autoregressive" in str(error.value) and "family," not in str(error.value)
