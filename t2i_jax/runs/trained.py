"""A trained run in memory, ready to draw."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax import config as configs
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.family import Family, Variables, parameter_shapes
from t2i_jax.core.trees import moved_to_device, require_fit
from t2i_jax.families.load import load_family
from t2i_jax.runs.adapters import with_adapters
from t2i_jax.runs.embeddings import with_embeddings
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.other_runs import with_other_runs
from t2i_jax.runs.prepare import resolve
from t2i_jax.runs.run_folder import (
    config_of,
    read_run,
    read_tokenizer,
    read_variables,
    refuse_trained_settings,
)


def read_trained(
    workdir, checkpoint: str | int, overrides: Sequence[str]
) -> tuple[Any, Family, Variables, Any, str]:
    """Return (config, family, variables, tokenizer, the hash of the weights) of a run folder.

    checkpoint: see `pipeline.load`.
    overrides: of the config, "key=value".
    Raises FileNotFoundError if the folder is not a run, has no such checkpoint, or needs published
    weights that are not there; ValueError for an override that can only be set in training.
    """
    keep_compiled_programs()
    refuse_trained_settings(overrides)
    run = read_run(workdir)
    config = config_of(run)
    configs.override(config, overrides)
    configs.refuse_wrong_values(config)
    config = resolve(config, workdir)
    variables, tokenizer = read_variables(workdir, checkpoint), read_tokenizer(workdir, run)
    config, tokenizer, frozen = with_embeddings(config, tokenizer, variables.frozen)
    family = load_family(config)
    shapes = parameter_shapes(config, family)
    require_fit(variables.params, shapes, f"the weights in {workdir} do not fit its run.json")
    variables = with_adapters(variables._replace(frozen=frozen), config)
    frozen = jax.tree.map(jnp.asarray, with_other_runs(variables.frozen, config, tokenizer))
    weights = tree_hash(variables.params)
    variables = Variables(moved_to_device(variables.params), variables.extra, frozen)
    return config, family, variables, tokenizer, weights
