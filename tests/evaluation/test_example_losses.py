"""Losses of single examples: their mean over draws, whatever the batch, and what is refused."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.family import Family, Variables
from t2i_jax.core.random import keys_at
from t2i_jax.core.source import Source
from t2i_jax.evaluation.example_losses import DRAWS, example_losses


def read(positions):
    return np.full((len(positions), 2, 2, 3), positions[:, None, None, None], np.uint8)


SOURCE = Source([""] * 200, read, "levels")


def noisy_level(params, ctx):
    """The level of a picture times a parameter, and noise of each example."""
    noise = jax.vmap(jax.random.uniform)(ctx.keys)
    loss = params["w"] * ctx.batch["image"].astype(jnp.float32).mean((1, 2, 3)) + noise
    return loss, (ctx.extra, {"train": jnp.full(len(loss), ctx.train)})


def pipeline(losses, batch, monkeypatch):
    monkeypatch.setattr(
        "t2i_jax.evaluation.example_losses.tokenise", lambda *args: ({"text": {}}, 0)
    )
    family = Family(init=lambda *args: {}, losses=losses, abilities={}, settings={})
    config = SimpleNamespace(evaluate=SimpleNamespace(batch=batch), text=None)
    variables = Variables({"w": jnp.float32(10.0)}, {}, {})
    return SimpleNamespace(family=family, variables=variables, config=config, tokenizer=None)


@pytest.mark.parametrize("batch", [2, 4, 16])
def test_a_mean_over_draws_whatever_the_batch(batch, monkeypatch):
    index = np.array([3, 150, 0, 7, 9])
    found = example_losses(pipeline({"model": noisy_level}, batch, monkeypatch), SOURCE, index)
    noise = [np.asarray(jax.vmap(jax.random.uniform)(keys_at(i, index))) for i in range(DRAWS)]
    np.testing.assert_allclose(found, 10.0 * index + np.mean(noise, axis=0), rtol=1e-6)


def test_several_losses_are_refused(monkeypatch):
    pipe = pipeline({"a": noisy_level, "b": noisy_level}, 4, monkeypatch)
    with pytest.raises(ValueError, match="trained by several losses"):
        example_losses(pipe, SOURCE, np.arange(3))


def test_a_loss_that_compares_examples_is_refused(monkeypatch):
    def above_the_mean(params, ctx):
        loss, rest = noisy_level(params, ctx)
        return loss - loss.mean(), rest

    pipe = pipeline({"model": above_the_mean}, 4, monkeypatch)
    with pytest.raises(ValueError, match="compares examples"):
        example_losses(pipe, SOURCE, np.arange(3))
