"""The loss of each example under a trained model, as it is measured on `validation`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from t2i_jax.core.family import Context
from t2i_jax.core.random import keys_at
from t2i_jax.core.source import Source
from t2i_jax.data.loader import make_batch
from t2i_jax.pipeline import Pipeline
from t2i_jax.runs.columns import tokenise

DRAWS = 4  # of the noise of a loss, for each example


def example_losses(
    pipe: Pipeline, source: Source, index: Int[np.ndarray, "N"], title: str = "losses"
) -> Float[np.ndarray, "N"]:
    """Return the loss of the examples at `index`, a mean over `DRAWS` draws of its noise.

    Draw i of an example has the random key of (i, its index), whatever the batch.
    title: of the progress bar.
    Raises ValueError for a model that is trained by several losses, or by one that compares
    examples.
    """
    if len(pipe.family.losses) > 1:
        raise ValueError("this model is trained by several losses, of which none is of one example")
    (loss,), size, losses = pipe.family.losses.values(), pipe.config.evaluate.batch, []
    columns, _ = tokenise(source, pipe.tokenizer, pipe.config.text)
    batches = range(0, len(index), size)
    for first in tqdm(batches, desc=title, unit="batch", leave=False, disable=None):
        part = index[first : first + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part))])

        def draws_of(rows):
            batch = make_batch(source, columns, rows)
            return [
                np.asarray(_losses(loss, pipe.variables, batch, keys_at(draw, rows)))
                for draw in range(DRAWS)
            ]

        draws = draws_of(padded)
        if not losses:  # the first example has the same loss among copies of itself
            alone = draws_of(np.repeat(part[:1], size))
            if not np.allclose(np.array(alone)[:, 0], np.array(draws)[:, 0], rtol=1e-3):
                raise ValueError("the loss of this model compares examples, so none has its own")
        losses.append(np.mean(draws, axis=0)[: len(part)])
    return np.concatenate(losses)


@functools.partial(jax.jit, static_argnums=0)
def _losses(loss, variables, batch, keys):
    ema = {"params": variables.params, "extra": variables.extra}
    weight, step = jnp.ones(len(keys)), jnp.int32(0)
    ctx = Context(variables.extra, variables.frozen, ema, step, batch, keys, False, weight, keys[0])
    return loss(variables.params, ctx)[0]
