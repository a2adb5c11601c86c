"""A second run that captions, by which candidates for a picture are ranked: as CLIP in arXiv 2102.12092, section 2.6."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from t2i_jax.by_name import having, make_of
from t2i_jax.checkpoint import restore_ema
from t2i_jax.families.family import Variables
from t2i_jax.run_folder import config_of, read_frozen, read_run
from t2i_jax.text import tokenizer as tokenizers


def make(config) -> Callable | None:
    """score(frozen, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> log p(caption | picture), [B] nats, by the run
    that `config.ranker` names; `frozen` has what `add_weights` added. None if it names none.

    Raises FileNotFoundError if it is no run folder, and ValueError if that run does not caption such pictures.
    """
    if not config.ranker:
        return None
    own = config_of(read_run(config.ranker))
    if own.family not in (able := having("families", "make_score")):
        raise ValueError(f"ranker: {config.ranker} is a run of family {own.family!r}; it must be of {' or '.join(able)}")
    if own.data.resolution != config.data.resolution:
        raise ValueError(
            f"ranker: {config.ranker} sees {own.data.resolution} px, and this model draws {config.data.resolution}"
        )
    score = make_of("families", own.family, "make_score")(own)
    return lambda frozen, image, text: score(Variables(*frozen["ranker"]), image, text)


def add_weights(frozen: dict, config, tokenizer) -> dict:
    """`frozen` with those of the run `config.ranker`, if it names one. ValueError if it knows other words than `tokenizer`."""
    if not config.ranker:
        return frozen
    run = read_run(config.ranker)
    if tokenizer.to_str() != tokenizers.load(Path(config.ranker) / "tokenizer.json").to_str():
        raise ValueError(
            f"ranker: {config.ranker} reads other tokens than this model: train both on one data set and config.text"
        )
    ema, _ = restore_ema(config.ranker)
    variables = Variables(ema["params"], ema.get("extra") or {}, read_frozen(config.ranker, run))
    return {**frozen, "ranker": jax.tree.map(np.asarray, variables)}
