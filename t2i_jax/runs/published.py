"""A published model in memory, ready to draw, without a run folder."""

from collections.abc import Sequence
from typing import Any

from t2i_jax import config as configs
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.family import Family, Variables
from t2i_jax.core.importer import Importer
from t2i_jax.core.trees import moved_to_device
from t2i_jax.families.load import load_family
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.reranker import with_reranker
from t2i_jax.runs.run_folder import refuse_trained_settings


def read_published(
    importer: Importer, overrides: Sequence[str], dtype: str
) -> tuple[Any, Family, Variables, Any, str]:
    """Return (config, family, variables, tokenizer, the hash of the weights).

    overrides: of the config, "key=value".
    dtype: see `Importer.read`, which must not be None.
    Raises ValueError for another dtype, and for an override that can only be set in training.
    """
    if importer.read is None:
        raise ValueError(f"{importer.what} draws nothing by itself")
    refuse_trained_settings(overrides)
    keep_compiled_programs()
    model = importer.read(dtype)
    config = model.config
    configs.override(config, overrides)
    weights = tree_hash(model.params)
    frozen: Any = moved_to_device(model.frozen)
    frozen = with_reranker(frozen, config, model.tokenizer)
    variables = Variables(moved_to_device(model.params), {}, frozen)
    return config, load_family(config), variables, model.tokenizer, weights
