"""The file name is the registry."""

import pytest

from t2i_jax.core.registry import defines, lookup


def test_finds_make_by_file_name():
    assert lookup("families", "diffusion").__module__ == "t2i_jax.families.diffusion"


@pytest.mark.parametrize(
    ("folder", "name", "near"),
    [
        ("families", "difusion", "diffusion"),
        ("data", "shape", "shapes"),
        ("text", "transfromer", "transformer"),
    ],
)
def test_names_the_nearest(folder, name, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        lookup(folder, name)


def test_defines():
    assert defines("families", "gan", "make") and not defines("families", "gan", "importer")
    assert not defines("families", "load", "make") and not defines("families", "no", "make")


def test_files_without_make_are_not_choices():
    with pytest.raises(ValueError, match="there are") as error:
        lookup("families", "family")
    assert "autoregressive" in str(error.value) and "family," not in str(error.value)


def test_a_name_with_a_dot_is_a_module(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_family.py").write_text("def make(config):\n    return 'made'\n")
    (tmp_path / "my_package" / "needy.py").write_text("import something_not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup("families", "my_package.my_family")(None) == "made"
    assert defines("families", "my_package.my_family", "make")
    assert not defines("families", "my_package.my_family", "fields")
    assert not defines("families", "no_package.my_family", "make")
    with pytest.raises(ValueError, match="has no function 'fields'"):
        lookup("families", "my_package.my_family", "fields")
    for name in ("my_package.other", "no_package.my_family"):
        with pytest.raises(ValueError, match=f"no module '{name}'"):
            lookup("families", name)
    with pytest.raises(ModuleNotFoundError, match="something_not_installed"):
        lookup("families", "my_package.needy")


@pytest.mark.parametrize("name", [".gan", "gan.", "../families/gan", "", "."])
def test_other_dots_are_unknown_names(name):
    with pytest.raises(ValueError, match="there is no"):
        lookup("families", name)
