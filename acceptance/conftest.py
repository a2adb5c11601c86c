"""What a reader of the project does: `python -m pytest acceptance`.

The commands of README.md and docs/, the notebooks, and a wheel outside the checkout, all in their
small settings. Data is fetched once, from npm, Debian and PyPI, into the data folder
($T2I_JAX_DATA, or ~/.cache/t2i_jax).
"""

import os

import pytest

from tests.conftest import flags_for  # first: it sets XLA's flags, for quick compiling


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory):
    """For other processes: one CPU device, and one cache of compiled programs."""
    cache = tmp_path_factory.getbasetemp() / "compiled"
    os.environ["XLA_FLAGS"] = flags_for(devices=1)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
