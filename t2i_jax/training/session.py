"""What one call of `train` works with: what it prepared, compiled and opened."""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from t2i_jax.core.family import Frozen, Variables
from t2i_jax.core.source import Source
from t2i_jax.families.lora import merged
from t2i_jax.pipeline import Pipeline
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.prepare import Prepared
from t2i_jax.training import parallel
from t2i_jax.training.programs import Programs
from t2i_jax.training.watchdog import Watchdog
from t2i_jax.training.writers import NoWriters, Writers


class Evaluators(NamedTuple):
    """What the loop calls while it trains (evaluation/during_training.py).

    grid: (pipeline, training, validation) -> a contact sheet of examples, every `train.eval_every`
        steps; None for no sheet.
    score: (pipeline, validation) -> {"score/NAME": number}, every `train.score_every` steps; None
        for none.
    """

    grid: Callable[[Pipeline, Source, Source], Image.Image] | None = None
    score: Callable[[Pipeline, Source], dict[str, float]] | None = None


NO_EVALUATORS = Evaluators()


class Session(NamedTuple):
    """One call of `train`: what it prepared, compiled and opened."""

    prepared: Prepared
    place: parallel.Parallel
    evaluators: Evaluators
    programs: Programs
    manager: Any
    writers: Writers | NoWriters
    watchdog: Watchdog

    def pipeline(self, ema, named: bool = False) -> Pipeline:
        """Return a pipeline of averaged weights. named: with their hash, for metadata."""
        p = self.prepared
        params, extra, frozen = merged(
            Variables(ema["params"], ema["extra"], p.frozen_for_drawing), p.config
        )
        frozen = jax.tree.map(jnp.asarray, frozen)  # sent to the device once
        variables = Variables(params, extra, cast(Frozen, frozen))
        weights = tree_hash(jax.tree.map(np.asarray, params)) if named else ""
        return Pipeline(p.config, p.family, variables, p.tokenizer, weights)
