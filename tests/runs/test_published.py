"""The models that come with the project. What they draw: acceptance/test_published.py."""

import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import parameter_shapes
from t2i_jax.core.trees import require_fit
from t2i_jax.families.load import load_family
from t2i_jax.parser import OUR_MODEL, parser
from t2i_jax.runs import run_folder

MAX_BYTES = 30 * 2**20


def test_they_are_small():
    files = [path for path in run_folder.PUBLISHED.rglob("*") if path.is_file()]
    assert OUR_MODEL in run_folder.published_names()
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("name", run_folder.published_names())
def test_each_is_whole_and_fits_its_config(name):
    """Reading compares weights, frozen parts, settings and tokenizer with their hashes."""
    run = run_folder.read_run(name)
    config = run_folder.config_of(run)
    configs.refuse_wrong_values(config)
    params = run_folder.read_variables(name).params
    require_fit(params, parameter_shapes(config, load_family(config)), name)
    assert run_folder.read_tokenizer(name, run).get_vocab_size() > 2


def test_commands_that_use_a_model_have_one():
    for command in (["sample", "--prompt=x"], ["caption", "--image=x.png"], ["serve"]):
        assert parser().parse_args(command).workdir == OUR_MODEL
    with pytest.raises(SystemExit):
        parser().parse_args(["edit", "--image=x.png"])
