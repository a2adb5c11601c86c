"""The step folds over players, in order, and feeds the later ones what the earlier became."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import state, step
from t2i_jax.families.family import Family


def two_players():
    """`first` fits the pictures' mean; `second` fits `first`; `extra` counts the losses that were taken."""

    def init(rng, batch):
        return {"first": jnp.array(0.0), "second": jnp.array(0.0)}, {"calls": jnp.array(0.0)}

    def first(params, ctx):
        values = ctx.batch["image"].mean((1, 2, 3)) / 255.0
        return (params["first"] - values) ** 2, ({"calls": ctx.extra["calls"] + 1}, {"value": values})

    def second(params, ctx):
        count = ctx.batch["image"].shape[0]
        per_example = jnp.broadcast_to((params["second"] - params["first"]) ** 2, count)
        return per_example, ({"calls": ctx.extra["calls"] + 1}, {})

    return Family(init, {"first": first, "second": second}, {}, {})


def one_step(accumulate=1):
    family = two_players()
    optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
    batch = {"image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 255, 255)]), "index": np.arange(4)}
    start = state.create(family, optimizers, batch, 0)
    return step.make_step(family, optimizers, ema_decay=0.5, accumulate=accumulate)(start, {}, batch)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_players_in_turn(accumulate):
    after, metrics = one_step(accumulate)
    # first: 0 - 0.5 * 2 * (0 - 0.75); second sees 0.75 at once: 0 - 0.5 * 2 * (0 - 0.75)
    np.testing.assert_allclose([after.params["first"], after.params["second"]], [0.75, 0.75], rtol=1e-6)
    np.testing.assert_allclose(metrics["first/loss"], 0.75, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/value"], 0.75, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/grad_norm"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["second/loss"], 0.75**2, rtol=1e-6)
    assert after.extra["calls"] == 2 * accumulate and after.step == 1
    d = min(0.5, 1 / 10)  # of the average's warm-up, at step 0
    np.testing.assert_allclose(after.ema["params"]["first"], (1 - d) * 0.75, rtol=1e-6)


def test_several_updates_a_step_each_see_other_examples():
    """`first` fits the parts (0, 2), (1, 3) of four pictures, one after another; `second` has one update, on part 0."""
    family = two_players()._replace(updates={"first": 2})
    optimizers = {"first": optax.sgd(0.25), "second": optax.sgd(0.5)}
    batch = {"image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 51, 102)]), "index": np.arange(4)}
    start = state.create(family, optimizers, batch, 0)
    after, metrics = step.make_step(family, optimizers, ema_decay=0.5)(start, {}, batch)
    once = 0.5 * 0.1  # half of the way to the mean of 0 and 0.2
    twice = once + 0.5 * (0.7 - once)  # and then to that of 1 and 0.4
    np.testing.assert_allclose(after.params["first"], twice, rtol=1e-6)
    np.testing.assert_allclose(after.params["second"], twice, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/value"], 0.4, rtol=1e-6)  # the mean over both updates
    assert after.extra["calls"] == 3


def test_augmented_batches_reach_the_losses_with_keys_of_their_own():
    family, seen = two_players(), []

    def augment(batch, keys):
        seen.append(np.asarray(jax.random.key_data(keys)))
        return {**batch, "image": 255 - batch["image"]}

    optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
    batch = {"image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255)]), "index": np.arange(2)}
    start = state.create(family, optimizers, batch, 0)
    batch["image"] = batch["image"][[0, 0]]
    after, _ = step.make_step(family, optimizers, ema_decay=0.5, augment=augment)(start, {}, batch)
    np.testing.assert_allclose(after.params["first"], 1.0)  # of black pictures turned white
    own = np.asarray(jax.random.key_data(step.example_keys(start.rng, 0, 2)))
    assert not (seen[0] == own).all(1).any()


def test_example_keys_depend_on_step_and_place_only():
    rng = jax.random.key(3)
    keys = jax.random.key_data(step.example_keys(rng, 5, 8))
    assert len(np.unique(keys, axis=0)) == 8
    np.testing.assert_array_equal(keys[:4], jax.random.key_data(step.example_keys(rng, 5, 4)))
    assert (keys != jax.random.key_data(step.example_keys(rng, 6, 8))).any(1).all()
    split = jax.pmap(lambda _: jax.random.key_data(step.example_keys(rng, 5, 2, "b")), "b", devices=jax.devices()[:4])
    np.testing.assert_array_equal(split(np.zeros(4)).reshape(8, -1), keys)


def test_measure_ignores_filled_up_examples():
    family = two_players()
    batch = {"image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 51)])}
    ema = {"params": {"first": 0.0, "second": 0.0}, "extra": {"calls": 0.0}}
    sums = step.make_measure(family)(ema, {}, batch, jax.random.key(0), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(sums["first/loss"], 1.0)
    np.testing.assert_allclose(sums["first/value"], 1.0)
