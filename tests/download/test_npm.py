"""Archives are accepted by hash only; errors tell how to get what is missing. No network."""

import base64
import hashlib
import io
import os
import tarfile

import pytest

from t2i_jax.download import npm

SPEC, OTHER = "@scope/things@1.2.0", "plain@0.1.0"


def pack(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def archives(tmp_path):
    """A folder of two archives, and their table."""
    folder = tmp_path / "archives"
    folder.mkdir()
    table = {
        spec: pack(folder / npm.file_name(spec), {"package/a": spec.encode()})
        for spec in (SPEC, OTHER)
    }
    return folder, table


def fake_npm(tmp_path, monkeypatch, script):
    """An `npm` on PATH that is a shell script; $2 is the spec."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "npm"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")


def test_file_names_are_those_of_npm_pack():
    assert npm.file_name("@lobehub/fluent-emoji-3d@1.1.0") == "lobehub-fluent-emoji-3d-1.1.0.tgz"
    assert npm.file_name("emojibase-data@17.0.0") == "emojibase-data-17.0.0.tgz"


def test_archives_fetched_by_other_means_are_checked_and_copied(archives, tmp_path, monkeypatch):
    folder, table = archives
    monkeypatch.setenv("PATH", "")
    cache = tmp_path / "cache"
    assert npm.missing(table, cache) == [SPEC, OTHER]
    npm.fetch(table, cache, folder)
    assert npm.missing(table, cache) == []
    assert sorted(p.name for p in cache.iterdir()) == ["plain-0.1.0.tgz", "scope-things-1.2.0.tgz"]
    npm.fetch(table, cache)  # nothing is missing, so npm is not needed


def test_a_wrong_hash_names_file_expected_and_found(archives, tmp_path):
    folder, table = archives
    found = pack(folder / npm.file_name(SPEC), {"package/a": b"another"})
    with pytest.raises(ValueError) as error:
        npm.fetch(table, tmp_path / "cache", folder)
    for part in ("scope-things-1.2.0.tgz", table[SPEC], found):
        assert part in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing that looks complete


def test_a_damaged_archive_in_the_cache_is_an_error(archives):
    folder, table = archives
    (folder / npm.file_name(OTHER)).write_bytes(b"half")
    with pytest.raises(
        ValueError, match=r"plain-0\.1\.0\.tgz: expected sha512-.*delete it and try again"
    ):
        npm.fetch(table, folder)


def test_missing_archives_are_all_named(archives, tmp_path):
    _, table = archives
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"empty does not hold scope-things-1\.2\.0\.tgz, plain-0\.1\.0\.tgz",
    ):
        npm.fetch(table, tmp_path / "cache", tmp_path / "empty")


def test_without_npm_the_error_tells_what_to_do(archives, tmp_path, monkeypatch):
    _, table = archives
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError) as error:
        npm.fetch(table, tmp_path / "cache")
    for part in (
        "npm was not found",
        "scope-things-1.2.0.tgz",
        "plain-0.1.0.tgz",
        "npm registry",
        "--archives=",
    ):
        assert part in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="the fake npm is a shell script")
def test_npm_packs_only_what_is_missing(archives, tmp_path, monkeypatch):
    folder, table = archives
    fake_npm(tmp_path, monkeypatch, f'echo "$1 $2" >> {tmp_path}/log\ncp {folder}/*.tgz .\n')
    npm.fetch({OTHER: table[OTHER]}, tmp_path / "cache")
    npm.fetch(table, tmp_path / "cache")
    assert (tmp_path / "log").read_text().splitlines() == [f"pack {OTHER}", f"pack {SPEC}"]
    assert npm.missing(table, tmp_path / "cache") == []


@pytest.mark.skipif(os.name == "nt", reason="the fake npm is a shell script")
def test_the_error_of_npm_is_passed_on(archives, tmp_path, monkeypatch):
    _, table = archives
    fake_npm(tmp_path, monkeypatch, "echo 'npm error no route' >&2\nexit 1\n")
    with pytest.raises(
        RuntimeError,
        match=r"npm pack @scope/things@1\.2\.0 failed(.|\n)*--archives=(.|\n)*no route",
    ):
        npm.fetch(table, tmp_path / "cache")


def test_files_are_read_without_unpacking_and_links_are_ignored(tmp_path):
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("package/x/1", "package/y", "../outside"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"ok"))
        link = tarfile.TarInfo("package/x/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert list(npm.files(path, "package/x/")) == [("package/x/1", b"ok")]
    assert not (tmp_path.parent / "outside").exists()
