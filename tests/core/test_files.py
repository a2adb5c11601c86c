"""Fingerprints tell apart what differs; what is written atomically is complete or absent."""

import pytest

from t2i_jax.core.files import atomic_path, data_dir, fingerprint


def test_fingerprint_depends_on_content_order_and_borders():
    base = fingerprint("a", "bc", b"d")
    assert base == fingerprint("a", "bc", "d") and len(base) == 64
    assert (
        len(
            {base, fingerprint("ab", "c", "d"), fingerprint("bc", "a", "d"), fingerprint("a", "bc")}
        )
        == 4
    )


def test_data_dir_can_be_set(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    monkeypatch.delenv("T2I_JAX_DATA")
    assert data_dir().parts[-2:] == (".cache", "t2i_jax")


def test_atomic_path_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert list(path.parent.iterdir()) == []
    with atomic_path(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and list(path.parent.iterdir()) == [path]
    with atomic_path(path) as part:
        part.write_text("newer")
    assert path.read_text() == "newer"


def test_a_folder_that_another_process_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "folder"
    with atomic_path(path) as part:
        for folder, text in ((part, "ours"), (path, "theirs")):
            folder.mkdir()
            (folder / "file.txt").write_text(text)
    assert (path / "file.txt").read_text() == "theirs" and list(tmp_path.iterdir()) == [path]


def test_a_failed_rename_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file.txt"):
        pass  # nothing was written
