"""What a reader of the project does: `python -m pytest acceptance`.

The commands of README.md and docs/, the notebooks, and a wheel outside the checkout, all in their
small settings. Archives are fetched once, from npm, Debian and PyPI, into `downloads` of the data
folder ($T2I_JAX_DATA, or ~/.cache/t2i_jax). Everything else is made anew.
"""

import os

import pytest

from t2i_jax.core.files import data_dir
from tests.conftest import flags_for  # it sets XLA's flags, for quick compiling


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory):
    """One CPU device, one cache of compiled programs, and a data folder of the session."""
    downloads, data = data_dir() / "downloads", tmp_path_factory.mktemp("data")
    downloads.mkdir(parents=True, exist_ok=True)
    (data / "downloads").symlink_to(downloads)
    os.environ["T2I_JAX_DATA"] = str(data)
    os.environ["XLA_FLAGS"] = flags_for(devices=1)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.getbasetemp() / "compiled")
