"""The weights of the run that ranks candidates (families/reranking.py), read beside a run's own."""

import jax
import numpy as np

from t2i_jax.core.family import Frozen
from t2i_jax.runs.run_folder import locate, read_variables
from t2i_jax.text import tokenizer as tokenizers


def with_reranker(frozen: Frozen, config, tokenizer) -> Frozen:
    """Return `frozen` with the variables of the run that `config.reranker` names, if it names one.

    Raises ValueError if that run reads other tokens than `tokenizer` gives.
    """
    run = config.reranker.run
    if not run:
        return frozen
    if tokenizer.to_str() != tokenizers.load(locate(run) / "tokenizer.json").to_str():
        raise ValueError(
            f"reranker.run: {run} reads other tokens than this model: train both on one data set "
            "and config.text"
        )
    return {**frozen, "reranker": jax.tree.map(np.asarray, read_variables(run))}
