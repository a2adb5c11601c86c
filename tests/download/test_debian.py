"""Debian packages are accepted by hash only. No network: apt-get is a stand-in."""

import hashlib
import io
import tarfile

import pytest

from t2i_jax.download import debian

SPEC, NAME = "some-things=1.2~3-1", "some-things_1.2~3-1_all.deb"
FILES = {
    "./usr/share/things/a.bin": b"odd",
    "./usr/share/things/b.bin": bytes(range(256)) * 9,
    "./usr/share/doc/README": b"r",
}


def member(name, content, size=None):
    """Return a member of an ar archive: a header of 60 bytes, the content, padding to even."""
    size = len(content) if size is None else size
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{size:<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def packed(kind, files=FILES):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:
        folder = tarfile.TarInfo("./usr")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_deb(folder, data=None, name="data.tar.xz"):
    """Write a package to `folder` and return its table."""
    parts = [
        member("debian-binary", b"2.0\n"),
        member("control.tar.xz", b"never read"),
        member("extra/", b"odd"),
    ]
    (folder / NAME).write_bytes(
        b"!<arch>\n" + b"".join(parts) + member(name, packed("xz") if data is None else data)
    )
    return {SPEC: (NAME, hashlib.sha256((folder / NAME).read_bytes()).hexdigest())}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder from which a stand-in for apt-get takes packages."""
    folder, programs = tmp_path / "index", tmp_path / "bin"
    folder.mkdir(), programs.mkdir()
    script = (
        f'#!/bin/sh\n[ "$1 $2" = "download {SPEC}" ] && /bin/cp {folder}/{NAME} . || '
        f'{{ echo "E: no $2" >&2; exit 100; }}\n'
    )
    (programs / "apt-get").write_text(script)
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    return folder


def test_apt_fetches_the_package_and_only_once(index, tmp_path, monkeypatch):
    table = make_deb(index)
    debian.fetch(table, tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [NAME]
    monkeypatch.setenv("PATH", "")
    debian.fetch(table, tmp_path / "cache")
    assert (tmp_path / "cache" / NAME).read_bytes() == (index / NAME).read_bytes()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("data.tar.xz/", "xz"), ("data.tar.gz", "gz"), ("data.tar", ""), ("data.tar.bz2", "bz2")],
)
def test_files_of_every_compression_are_read(tmp_path, name, kind):
    make_deb(tmp_path, packed(kind), name)
    found = dict(debian.files(tmp_path / NAME, "usr/share/things/"))
    assert found == {
        "usr/share/things/a.bin": b"odd",
        "usr/share/things/b.bin": bytes(range(256)) * 9,
    }
    assert len(dict(debian.files(tmp_path / NAME))) == 3


def test_packages_fetched_by_other_means_are_checked_and_copied(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    table = make_deb(tmp_path)
    debian.fetch(table, tmp_path / "cache", tmp_path)
    assert (tmp_path / "cache" / NAME).read_bytes() == (tmp_path / NAME).read_bytes()
    with pytest.raises(ValueError, match=rf"{NAME}: expected 00, found {table[SPEC][1]}"):
        debian.fetch({SPEC: (NAME, "00")}, tmp_path / "other", tmp_path)
    assert list((tmp_path / "other").iterdir()) == []
    with pytest.raises(FileNotFoundError, match=rf"apt-get was not found.*{NAME}.*--archives="):
        debian.fetch(table, tmp_path / "third")


def test_the_error_of_apt_is_passed_on(index, tmp_path):
    with pytest.raises(
        RuntimeError,
        match=r"download other=1 failed; try `apt-get update`.*other.deb(.|\n)*E: no other=1",
    ):
        debian.fetch({"other=1": ("other.deb", "00")}, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4", "is not a Debian package"),
        (b"!<arch>\n" + member("debian-binary", b"2.0\n"), "no data.tar"),
        (b"!<arch>\n" + b"x" * 80, "no header at byte 8"),
        (
            b"!<arch>\n" + member("data.tar.zst", b"zz"),
            r"data\.tar\.zst: Python does not read \.zst, only \.gz, \.xz, \.bz2",
        ),
        (
            b"!<arch>\n" + member("data.tar.xz", packed("xz")[:100]),
            "damaged: data.tar.xz in it cannot be read",
        ),
        (
            b"!<arch>\n" + member("data.tar.gz", packed("gz")[:100]),
            "damaged: data.tar.gz in it cannot be read",
        ),
        (
            b"!<arch>\n" + member("data.tar.gz", b"nothing"),
            "damaged: data.tar.gz in it cannot be read",
        ),
    ],
)
def test_a_file_that_is_not_a_package_is_an_error_with_the_reason(tmp_path, content, message):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        dict(debian.files(tmp_path / NAME))
