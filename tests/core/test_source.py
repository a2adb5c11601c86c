"""Every data source keeps the contract of core/source.py: those found by file name."""

import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from t2i_jax.core.fields import Field
from t2i_jax.core.registry import lookup, names_with
from tests.core.test_text import check_fields

NAMES = names_with("data", "make")


def test_the_sources():
    assert set(NAMES) >= {
        "emoji",
        "fashion_mnist",
        "folder",
        "parquet",
        "shapes",
        "tfds",
        "webdataset",
    }
    assert names_with("data", "fields") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_source_describes_its_fields(name):
    fields = lookup("data", name, "fields")(ConfigDict({"name": name}))
    check_fields(fields)
    assert isinstance(fields["resolution"], Field) and "name" not in fields


def test_importing_the_sources_needs_no_tensorflow():
    code = (
        f"import sys, importlib\n"
        f"for name in {NAMES}: importlib.import_module('t2i_jax.data.' + name)\n"
        f"print([m for m in sys.modules if 'tensorflow' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
