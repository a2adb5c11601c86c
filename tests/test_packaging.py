"""setup.py, the lock files, the console script, and configs that are found by name.

acceptance/test_wheel.py builds a wheel and uses it.
"""

import importlib
import runpy
import sys

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from t2i_jax import config as configs
from t2i_jax.data.load import load_source
from tests.conftest import ROOT

ONLY_ON_3_11 = {"basedpyright"}  # the type checker runs once


@pytest.fixture
def package(monkeypatch):
    """The arguments that setup.py gives to `setup`."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def lock(name: str) -> dict[str, str]:
    """Return {package: version} of a lock file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): version for package, version in pairs}


def test_console_script(package):
    (script,) = package["entry_points"]["console_scripts"]
    name, _, target = script.partition(" = ")
    module, _, function = target.partition(":")
    assert name == "t2i-jax" and callable(getattr(importlib.import_module(module), function))


def test_types_and_models_are_packaged(package):
    patterns, folder = package["package_data"]["t2i_jax"], ROOT / "t2i_jax"
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    models = {path for path in (folder / "published").rglob("*") if path.is_file()}
    assert found == {folder / "py.typed"} | models and models
    assert "t2i_jax.evaluation.measures" in package["packages"]


def test_drawing_needs_no_tensorflow(package):
    """The extra "train" has it, and "test", so that the README's two commands stay two."""
    names = [Requirement(each).name for each in package["install_requires"]]
    assert not {"tensorflow", "tensorflow-cpu", "tensorflow-datasets", "array_record"} & {*names}
    extras = package["extras_require"]
    assert extras["train"] and {*extras["train"]} <= {*extras["test"]}


def test_data_that_need_the_extra_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "t2i_jax.data.shapes_builder", raising=False)
    monkeypatch.delattr("t2i_jax.data.shapes_builder", raising=False)
    config = configs.load("shapes:smoke").data
    with pytest.raises(RuntimeError, match=r"'shapes' need tensorflow_datasets: pip install 't2i"):
        load_source(config, "test")


def test_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configs.load("shapes:smoke") == configs.load(f"{ROOT}/configs/shapes.py:smoke")
    assert "shapes_gan:smoke" in configs.listing("shapes_gan")
    listed = [line.split()[0] for line in configs.names().splitlines()]
    assert listed == sorted(file.stem for file in (ROOT / "configs").glob("*.py"))
    with pytest.raises(FileNotFoundError, match=r"'shape'.*own are emoji.*did you mean 'shapes'"):
        configs.load("shape")
    with pytest.raises(FileNotFoundError, match=r"'configs/shapes\.py'; .* --config=shapes$"):
        configs.load("configs/shapes.py:smoke")


def test_locked_versions_of_the_docs_are_in_range(package):
    versions = lock("requirements-docs.lock")
    for requirement in map(Requirement, package["extras_require"]["docs"]):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-3.13.lock"])
def test_locked_versions_are_in_range(package, name):
    """Everything that setup.py asks for, with the tests' own needs, is in the lock file."""
    versions = lock(name)
    asked = [*package["install_requires"], *package["extras_require"]["test"]]
    for requirement in map(Requirement, asked):
        if requirement.marker and not requirement.marker.evaluate({"sys_platform": "linux"}):
            continue
        package_name = canonicalize_name(requirement.name)
        if "3.13" in name and package_name in ONLY_ON_3_11:
            continue
        assert requirement.specifier.contains(versions[package_name]), requirement
