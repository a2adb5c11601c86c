"""Other runs that a model draws with: the one that ranks candidates (families/reranking.py), and
the prior, which draws embeddings for captions (families/unclip.py)."""

from typing import cast

import jax
import numpy as np

from t2i_jax.core.family import Frozen, Variables
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.run_folder import locate, read_variables
from t2i_jax.text import tokenizer as tokenizers


def with_other_runs(frozen: Frozen, config, tokenizer) -> Frozen:
    """Return `frozen` with the variables of the runs that config.reranker and config.prior name.

    Raises ValueError if such a run reads other tokens than `tokenizer` gives, and for a prior that
    draws embeddings of another model than the embedder in `frozen`.
    """
    for section in ("reranker", "prior"):
        if run := config.get(section, {}).get("run"):
            _refuse_other_tokens(section, run, tokenizer)
            variables = jax.tree.map(np.asarray, read_variables(run))
            if section == "prior":
                _refuse_other_embeddings(run, variables, frozen)
            frozen = cast(Frozen, {**frozen, section: variables})
    return frozen


def refuse_other_tokens(config, tokenizer) -> None:
    """Raise ValueError if the embedder of `config` reads other tokens than `tokenizer` gives."""
    for section in ("first_stage", "embedder"):
        other = config.get(section, {})
        if other.get("run") and other.config.family == "contrastive":
            _refuse_other_tokens(section, other.run, tokenizer)


def _refuse_other_tokens(section: str, run: str, tokenizer) -> None:
    if tokenizer.to_str() != tokenizers.load(locate(run) / "tokenizer.json").to_str():
        raise ValueError(
            f"{section}.run: {run} reads other tokens than this model: train both on one data set "
            "and config.text"
        )


def _refuse_other_embeddings(run: str, prior: Variables, frozen: Frozen) -> None:
    theirs, ours = (
        tree_hash(jax.tree.map(np.asarray, part))
        for part in (prior.frozen["first_stage"], frozen["embedder"])
    )
    if theirs != ours:
        raise ValueError(
            f"prior.run: {run} draws embeddings of another model ({theirs}) than those that this "
            f"one draws pictures of ({ours}): train both with one contrastive run"
        )
