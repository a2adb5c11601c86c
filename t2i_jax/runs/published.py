"""A published model in memory, ready to draw, without a run folder."""

from collections.abc import Callable, Sequence
from typing import Any

from t2i_jax import config as configs
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.family import Family, Variables
from t2i_jax.core.importer import Imported
from t2i_jax.core.trees import moved_to_device
from t2i_jax.families.load import load_family
from t2i_jax.runs.adapters import with_adapters
from t2i_jax.runs.embeddings import with_embeddings
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.other_runs import with_other_runs
from t2i_jax.runs.run_folder import refuse_trained_settings


def read_published(
    read: Callable[..., Imported], overrides: Sequence[str], dtype: str
) -> tuple[Any, Family, Variables, Any, str]:
    """Return (config, family, variables, tokenizer, the hash of the weights).

    read, dtype: see `Importer.read`.
    overrides: of the config, "key=value".
    Raises ValueError for another dtype, and for an override that can only be set in training.
    """
    refuse_trained_settings(overrides)
    keep_compiled_programs()
    model = read(dtype)
    config = model.config
    configs.override(config, overrides)
    config, tokenizer, frozen = with_embeddings(config, model.tokenizer, model.frozen)
    params, _, frozen = with_adapters(Variables(model.params, {}, frozen), config)
    weights = tree_hash(params)
    frozen = with_other_runs(moved_to_device(frozen), config, tokenizer)
    variables = Variables(moved_to_device(params), {}, frozen)
    return config, load_family(config), variables, tokenizer, weights
