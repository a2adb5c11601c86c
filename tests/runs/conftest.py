"""A run that was opened once."""

import pytest

from t2i_jax.data.load import load_source
from t2i_jax.families.load import load_family
from t2i_jax.runs import prepare


@pytest.fixture
def opened(smoke, tmp_path):
    """(config, training data, its folder, what `open_run` returned) of a tiny run."""
    config = smoke("shapes")
    training = load_source(config.data, "train")
    return (
        config,
        training,
        tmp_path / "run",
        prepare.open_run(config, tmp_path / "run", load_family(config), training),
    )
