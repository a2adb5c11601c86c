"""Fingerprints tell apart what differs."""

from t2i_jax.data import source


def test_fingerprint_sees_content_order_and_borders():
    base = source.fingerprint("a", "bc", b"d")
    assert base == source.fingerprint("a", "bc", "d") and len(base) == 64
    assert (
        len({base, source.fingerprint("ab", "c", "d"), source.fingerprint("bc", "a", "d"), source.fingerprint("a", "bc")}) == 4
    )


def test_data_dir_can_be_set(monkeypatch, tmp_path):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    assert source.data_dir() == tmp_path
    monkeypatch.delenv("T2I_JAX_DATA")
    assert source.data_dir().parts[-2:] == (".cache", "t2i_jax")
