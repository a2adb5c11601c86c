"""An empty data folder, and an empty folder of pictures, for sources that read a folder."""

import pytest


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def top(tmp_path, data_dir):
    (tmp_path / "top").mkdir()
    return tmp_path / "top"
