"""setup.py and the lock files agree, and the console script exists."""

import importlib
import runpy

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_types_are_packaged(package):
    assert package["package_data"] == {"t2i_jax": ["py.typed"]}
    assert (ROOT / "t2i_jax" / "py.typed").is_file()
    assert "t2i_jax.evaluation.measures" in package["packages"]


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
