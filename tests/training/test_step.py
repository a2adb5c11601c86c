"""The step folds over players, in order, and feeds the later ones what the earlier became."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax.config import base
from t2i_jax.core import state
from t2i_jax.core.family import Family
from t2i_jax.core.random import example_keys
from t2i_jax.training import gradients, optimizer, step


def two_players():
    """`first` fits the pictures' mean, `second` fits `first`, `extra` counts the losses."""

    def init(rng, batch):
        return {"first": jnp.array(0.0), "second": jnp.array(0.0)}, {"calls": jnp.array(0.0)}

    def first(params, ctx):
        values = ctx.batch["image"].mean((1, 2, 3)) / 255.0
        return (params["first"] - values) ** 2, (
            {"calls": ctx.extra["calls"] + 1},
            {"value": values},
        )

    def second(params, ctx):
        count = ctx.batch["image"].shape[0]
        per_example = jnp.broadcast_to((params["second"] - params["first"]) ** 2, count)
        return per_example, ({"calls": ctx.extra["calls"] + 1}, {})

    return Family(init, {"first": first, "second": second}, {}, {})


def one_step(accumulate=1):
    family = two_players()
    optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
    batch = {
        "image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 255, 255)]),
        "index": np.arange(4),
    }
    start = state.create(family, optimizers, batch, 0)
    return step.make_step(family, optimizers, ema_decay=0.5, accumulate=accumulate)(
        start, {}, batch
    )


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_players_in_turn(accumulate):
    after, metrics = one_step(accumulate)
    # first: 0 - 0.5 * 2 * (0 - 0.75); second sees 0.75 at once: 0 - 0.5 * 2 * (0 - 0.75)
    np.testing.assert_allclose(
        [after.params["first"], after.params["second"]], [0.75, 0.75], rtol=1e-6
    )
    np.testing.assert_allclose(metrics["first/loss"], 0.75, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/value"], 0.75, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/grad_norm"], 1.5, rtol=1e-6)
    np.testing.assert_allclose(metrics["second/loss"], 0.75**2, rtol=1e-6)
    assert after.extra["calls"] == 2 * accumulate and after.step == 1
    d = min(0.5, 1 / 10)  # of the average's warm-up, at step 0
    np.testing.assert_allclose(after.ema["params"]["first"], (1 - d) * 0.75, rtol=1e-6)


def test_several_updates_a_step_each_see_other_examples():
    """`first` fits the parts (0, 2), (1, 3) of four pictures in turn, `second` part 0 alone."""
    family = two_players()._replace(updates={"first": 2})
    optimizers = {"first": optax.sgd(0.25), "second": optax.sgd(0.5)}
    batch = {
        "image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 51, 102)]),
        "index": np.arange(4),
    }
    start = state.create(family, optimizers, batch, 0)
    after, metrics = step.make_step(family, optimizers, ema_decay=0.5)(start, {}, batch)
    once = 0.5 * 0.1  # half of the way to the mean of 0 and 0.2
    twice = once + 0.5 * (0.7 - once)  # and then to that of 1 and 0.4
    np.testing.assert_allclose(after.params["first"], twice, rtol=1e-6)
    np.testing.assert_allclose(after.params["second"], twice, rtol=1e-6)
    np.testing.assert_allclose(metrics["first/value"], 0.4, rtol=1e-6)  # the mean over both updates
    assert after.extra["calls"] == 3


def test_parameters_are_limited_after_each_update():
    """`first` would come to 0.75, and `second` follows what it was limited to."""
    limits = {"first": 0.5, "second": 1.0}
    family = two_players()._replace(constrain=lambda name, x: jnp.minimum(x, limits[name]))
    optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
    image = np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 255, 255)])
    batch = {"image": image, "index": np.arange(4)}
    start = state.create(family, optimizers, batch, 0)
    after, _ = step.make_step(family, optimizers, ema_decay=0.5)(start, {}, batch)
    assert after.params == {"first": 0.5, "second": 0.5}


def test_augmented_batches_reach_the_losses_with_keys_of_their_own():
    family, seen = two_players(), []

    def augment(batch, keys):
        seen.append(np.asarray(jax.random.key_data(keys)))
        return {**batch, "image": 255 - batch["image"]}

    optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
    batch = {
        "image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255)]),
        "index": np.arange(2),
    }
    start = state.create(family, optimizers, batch, 0)
    batch["image"] = batch["image"][[0, 0]]
    after, _ = step.make_step(family, optimizers, ema_decay=0.5, augment=augment)(start, {}, batch)
    np.testing.assert_allclose(after.params["first"], 1.0)  # of black pictures turned white
    own = np.asarray(jax.random.key_data(example_keys(start.rng, 0, 2)))
    assert not (seen[0] == own).all(1).any()


def test_measure_ignores_filled_up_examples():
    family = two_players()
    batch = {"image": np.stack([np.full((2, 2, 3), v, np.uint8) for v in (0, 255, 51)])}
    ema = {"params": {"first": 0.0, "second": 0.0}, "extra": {"calls": 0.0}}
    sums = step.make_measure(family)(ema, {}, batch, jax.random.key(0), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(sums["first/loss"], 1.0)
    np.testing.assert_allclose(sums["first/value"], 1.0)


def linear():
    """A player w [3]: an example's loss is its pixel times sum(w); `seen` gets each Context."""
    seen = []

    def loss(params, ctx):
        seen.append(ctx)
        pixel = ctx.batch["image"][:, 0, 0, 0].astype(jnp.float32)
        return pixel * params["model"].sum(), (ctx.extra, {"pixel": pixel})

    family = Family(lambda rng, batch: ({"model": jnp.zeros(3)}, {}), {"model": loss}, {}, {})
    return family, seen


def pixels(*values):
    image = np.stack([np.full((1, 1, 3), value, np.uint8) for value in values])
    return {"image": image, "index": np.arange(len(values))}


def run_once(family, batch, rate=1.0, **settings):
    optimizers = {"model": optax.sgd(rate)}
    start = state.create(family, optimizers, batch, 0)
    return step.make_step(family, optimizers, ema_decay=0.5, **settings)(start, {}, batch)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_transformation_per_example_acts_before_the_mean(accumulate):
    """Clipping each gradient to norm 1 equals a loop over the examples."""
    family, _ = linear()
    batch, limit = pixels(0, 1, 2, 200), 1.0
    after, metrics = run_once(
        family, batch, accumulate=accumulate, per_example=gradients.clip_to_norm(limit)
    )
    each = [np.full(3, value, np.float64) for value in (0, 1, 2, 200)]
    clipped = [g * min(1.0, limit / max(np.linalg.norm(g), 1e-12)) for g in each]
    np.testing.assert_allclose(after.params["model"], -np.mean(clipped, axis=0), rtol=1e-6)
    np.testing.assert_allclose(metrics["pixel"], np.mean([0, 1, 2, 200]), rtol=1e-6)
    unclipped, _ = run_once(family, batch, accumulate=accumulate)
    np.testing.assert_allclose(unclipped.params["model"], -np.full(3, 203 / 4), rtol=1e-6)


def test_gradients_per_example_need_losses_without_a_state():
    with pytest.raises(ValueError, match="cannot be transformed per example"):
        family = two_players()
        optimizers = {"first": optax.sgd(0.5), "second": optax.sgd(0.5)}
        start = state.create(family, optimizers, pixels(0, 1), 0)
        update = step.make_step(
            family, optimizers, ema_decay=0.5, per_example=gradients.clip_to_norm(1.0)
        )
        update(start, {}, pixels(0, 1))


def test_a_transformation_after_the_mean_acts_once():
    """The same noise whatever the number of parts; other noise at another step."""
    family, _ = linear()
    batch, noise = pixels(0, 0, 0, 0), gradients.add_noise(0.5)
    one, four = (
        run_once(family, batch, accumulate=parts, after_mean=noise)[0].params["model"]
        for parts in (1, 4)
    )
    np.testing.assert_array_equal(one, four)
    assert np.abs(one).min() > 0
    optimizers = {"model": optax.sgd(1.0)}
    start = state.create(family, optimizers, batch, 0)._replace(step=jnp.int32(7))
    later, _ = step.make_step(family, optimizers, ema_decay=0.5, after_mean=noise)(start, {}, batch)
    assert (later.params["model"] != one).all()


def test_noise_is_the_same_on_every_device():
    """Under pmap over 4 devices, noise is added once to the mean, not once a device."""
    family, _ = linear()
    optimizers = {"model": optax.sgd(1.0)}
    batch = pixels(0, 0, 0, 0, 0, 0, 0, 0)
    start = state.create(family, optimizers, batch, 0)
    noise = gradients.add_noise(0.5)
    alone, _ = step.make_step(family, optimizers, ema_decay=0.5, after_mean=noise)(start, {}, batch)
    update = step.make_step(family, optimizers, ema_decay=0.5, after_mean=noise, axis_name="batch")
    parts = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), batch)
    after, _ = jax.pmap(update, "batch", in_axes=(None, None, 0), devices=jax.devices()[:4])(
        start, {}, parts
    )
    for device in range(4):
        np.testing.assert_allclose(after.params["model"][device], alone.params["model"], rtol=1e-6)


def test_a_loss_is_given_weights_and_one_key_a_step():
    family, seen = linear()
    run_once(family, pixels(1, 2, 3, 4), accumulate=2)
    ctx = seen[-1]
    assert ctx.weight.shape == (2,) and ctx.step_key.shape == () and ctx.train
    family, seen = linear()
    weight = np.array([1.0, 0.0], np.float32)
    ema = {"params": {"model": jnp.ones(3)}, "extra": {}}
    sums = step.make_measure(family)(ema, {}, pixels(5, 7), jax.random.key(0), weight)
    np.testing.assert_allclose([sums["loss"], sums["pixel"]], [15.0, 5.0])
    np.testing.assert_array_equal(seen[0].weight, weight)
    assert not seen[0].train


def test_accumulation_holds_one_sum_of_gradients():
    """32 parts need no more temporary memory than one part and a few gradients."""
    width = 512

    def loss(params, ctx):
        x = ctx.batch["image"].reshape(len(ctx.keys), -1).astype(jnp.float32)
        return jnp.tanh(x @ params["model"]).sum(-1), (ctx.extra, {})

    def init(rng, batch):
        return {"model": jnp.zeros((3, width)) + 0.1}, {}

    family, optimizers = Family(init, {"model": loss}, {}, {}), {"model": optax.sgd(0.1)}
    batch = pixels(*range(32))
    start = jax.eval_shape(lambda: state.create(family, optimizers, batch, 0))

    def temporary(parts):
        update = step.make_step(family, optimizers, ema_decay=0.5, accumulate=parts)
        compiled = jax.jit(update).lower(start, {}, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    gradient = 3 * width * 4
    assert temporary(32) <= temporary(1) + 4 * gradient < 32 * gradient


def test_carried_state_is_copied_into_the_averages():
    def loss(params, ctx):
        extra = {"mean": ctx.extra["mean"] + 1.0, "pool": ctx.extra["pool"] + 1.0}
        return jnp.zeros(len(ctx.keys)) * params["model"].sum(), (extra, {})

    def init(rng, batch):
        return {"model": jnp.zeros(2)}, {"mean": jnp.zeros(()), "pool": jnp.zeros(4)}

    family = Family(init, {"model": loss}, {}, {}, carried=("pool",))
    after, _ = run_once(family, pixels(0, 0))
    np.testing.assert_array_equal(after.ema["extra"]["pool"], np.ones(4))
    np.testing.assert_allclose(after.ema["extra"]["mean"], 0.9, rtol=1e-6)  # its warm-up: 1 - 1/10


def test_a_metric_named_loss_is_refused():
    family = Family(
        lambda rng, batch: ({"model": jnp.array(0.0)}, {}),
        {"model": lambda params, ctx: (jnp.ones(1), ({}, {"loss": jnp.ones(1)}))},
        {},
        {},
    )
    batch, optimizers = {"image": np.zeros((1, 2, 2, 3), np.uint8)}, {"model": optax.sgd(0.5)}
    now = state.create(family, optimizers, batch, seed=0)
    with pytest.raises(ValueError, match='a metric named "loss"'):
        step.make_step(family, optimizers, ema_decay=0.5)(now, {}, batch)


def test_frozen_parameters_cost_no_gradient_and_do_not_count_in_the_norm():
    """Of two layers on data, the first is frozen: 2 products forward, 1 backward; else 3."""
    size = 64

    def loss(params, ctx):
        x = ctx.batch["image"].reshape(4, -1)[:, :size] / 255.0
        out = x @ params["model"]["first"] @ params["model"]["second"]
        return jnp.square(out).mean(1), ({}, {})

    def init(rng, batch):
        return {"model": {"first": jnp.eye(size), "second": jnp.eye(size)}}, {}

    family, optimizers = Family(init, {"model": loss}, {}, {}), {"model": optax.sgd(0.0)}
    pictures = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    batch = {"image": pictures, "index": np.arange(4)}
    now = state.create(family, optimizers, batch, 0)
    flops, norms = [], []
    for pattern in ("", "first"):
        settings = base().optim
        settings.freeze = pattern
        stop = optimizer.stop_frozen(settings)
        update = jax.jit(step.make_step(family, optimizers, ema_decay=0.5, stop_frozen=stop))
        flops.append(update.lower(now, {}, batch).compile().cost_analysis()["flops"])
        norms.append(update(now, {}, batch)[1]["grad_norm"])
    product = 2 * 4 * size * size
    assert 1.9 * product < flops[0] - flops[1] < 2.2 * product + 2 * 4 * size * size
    # The gradients of both layers are equal here: x^T y with y = x.
    np.testing.assert_allclose(norms[0], np.sqrt(2) * norms[1], rtol=1e-5)
