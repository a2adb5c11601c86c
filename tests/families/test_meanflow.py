"""MeanFlow: its identity where the average velocity is known, and a picture in one call."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.diffusion.samplers import time_grid
from t2i_jax.families import diffusion, meanflow
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.load import load_family
from t2i_jax.models.layers import sine_time
from tests.conftest import ROOT

LENGTH, SIDE = 12, 8
NULL = {"tokens": np.eye(1, LENGTH, dtype=np.int32)[0], "mask": np.arange(LENGTH) < 1}
FROZEN = {"null_text": {"transformer": NULL}}
COLOURS = np.array([[230, 30, 30], [30, 30, 230]], np.uint8)
NOISE = jax.random.normal(jax.random.key(9), (4, 2, 2, 3))
T, R = jnp.array([0.3, 0.6, 0.9, 1.0]), jnp.array([0.1, 0.5, 0.2, 0.05])


def config_of(*overrides):
    small = ("data.resolution=8", "model.depth=1", *overrides)
    return configs.load(f"{ROOT}/configs/shapes_meanflow.py:dit_smoke", small)


def batch_of(count=4):
    """Return red pictures of one caption and blue ones of another."""
    word = np.arange(count) % 2
    tokens = np.where(np.arange(LENGTH) < 3, 5 + word[:, None], 0).astype(np.int32)
    return {
        "image": np.broadcast_to(COLOURS[word][:, None, None], (count, SIDE, SIDE, 3)),
        "text": {"transformer": {"tokens": tokens, "mask": tokens > 0}},
    }


def keys_of(seed, count=4):
    return jax.random.split(jax.random.key(seed), count)


def init(family):
    return jax.jit(family.init)(jax.random.key(0), batch_of())[0]


def moved(params):
    """Return other parameters: a fresh network predicts zero, whatever the time."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    normal = [jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return tree.unflatten([x + 0.1 * y for x, y in zip(leaves, normal, strict=True)])


def loss_of(family, params, keys, train=False):
    """Return (loss [B], metrics) of red and blue pictures."""

    @jax.jit
    def measure(params):
        ctx = Context({}, FROZEN, None, 0, batch_of(len(keys)), keys, train)
        loss, (_, metrics) = family.losses["model"](params, ctx)
        return loss, metrics

    return measure(params)


def test_the_derivative_agrees_with_finite_differences():
    """The target is v - (t - r) du/dt, where u changes along z + step v and t + step."""
    config = config_of()
    denoiser = diffusion.make_denoiser(config, vector=meanflow.INTERVAL_CHANNELS)
    params = moved(jax.jit(denoiser.init)(jax.random.key(0), batch_of()))
    z, velocity = jax.random.normal(jax.random.key(2), (2, 4, SIDE, SIDE, 3))
    condition = denoiser.encode_text(params, FROZEN, batch_of()["text"]["transformer"])
    u = jax.jit(meanflow.average_velocity(denoiser, params, condition))
    average, target = meanflow.meanflow_target(u, z, R, T, velocity)
    after, before = (u(z + step * velocity, R, T + step) for step in (1e-3, -1e-3))
    slope = (after - before) / 2e-3
    expected = velocity - (T - R)[:, None, None, None] * slope
    assert float(jnp.abs(slope).mean()) > 0.5
    np.testing.assert_array_equal(average, u(z, R, T))
    np.testing.assert_allclose(target, expected, atol=0.01 * float(jnp.abs(slope).max()))


def gaussian(mean, std):
    """Return (average velocity u, velocity v, the way z(t) from NOISE at t = 1) of data N(m, s²).

    The flow keeps (z_t - (1 - t) m) / sqrt(V(t)) constant, where V(t) = (1 - t)² s² + t². With
    s = 0 the data are the one point m.
    """

    def spread(t):
        return jnp.sqrt(((1.0 - t) * std) ** 2 + t**2)

    def move(z, t, r):
        return (1.0 - r) * mean + spread(r) / spread(t) * (z - (1.0 - t) * mean)

    def u(z, r, t):
        r, t = (x[:, None, None, None] for x in (r, t))
        return (z - move(z, t, r)) / (t - r)

    def v(z, t):
        t = t[:, None, None, None]
        rate = jax.jvp(spread, (t,), (jnp.ones_like(t),))[1] / spread(t)
        return rate * (z - (1.0 - t) * mean) - mean

    return u, v, lambda t: move(NOISE, jnp.ones(()), t)


@pytest.mark.parametrize(("mean", "std"), [(0.8, 0.0), (0.8, 0.5), (-0.3, 2.0)])
def test_the_true_average_velocity_is_its_own_target(mean, std):
    u, v, _ = gaussian(mean, std)
    average, target = meanflow.meanflow_target(u, NOISE, R, T, v(NOISE, T))
    np.testing.assert_allclose(target, average, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize(("mean", "std"), [(0.8, 0.0), (0.8, 0.5)])
def test_steps_of_the_true_average_velocity_are_exact(mean, std, steps):
    u, _, way = gaussian(mean, std)
    drawn = meanflow.follow(u, NOISE, time_grid(steps))
    np.testing.assert_allclose(drawn, mean + std * NOISE, atol=1e-5)
    halfway = meanflow.follow(u, NOISE, 0.5 + 0.5 * time_grid(steps))
    np.testing.assert_allclose(halfway, way(0.5), atol=1e-5)


def test_no_gradient_passes_the_target():
    def target_of(factor):
        return meanflow.meanflow_target(lambda z, r, t: factor * z, NOISE, R, T, factor * NOISE)

    _, (average, target) = jax.jvp(target_of, (2.0,), (1.0,))
    np.testing.assert_array_equal(average, NOISE)
    assert not target.any()


@pytest.mark.parametrize("kappa", [0.0, 0.5, 0.9])
def test_a_guided_network_is_its_own_target(kappa):
    """With u = guidance v(z | text) + (1 - guidance) v(z), the mean target is u; without text v."""
    guidance, (cond, uncond) = 3.0, jax.random.normal(jax.random.key(0), (2, 4, 2, 2, 3))
    u = guidance * cond + (1.0 - guidance) * uncond
    told = meanflow.guided_velocity(cond, jnp.concatenate([u, uncond]), guidance, kappa)
    np.testing.assert_allclose(told, u, rtol=1e-5, atol=1e-5)
    null = meanflow.guided_velocity(uncond, jnp.concatenate([uncond, uncond]), guidance, kappa)
    np.testing.assert_allclose(null, uncond, rtol=1e-5, atol=1e-5)


def test_without_guidance_the_target_is_the_velocity():
    velocity, *own = jax.random.normal(jax.random.key(0), (3, 4, 2, 2, 3))
    told = meanflow.guided_velocity(velocity, jnp.concatenate(own), 1.0, 0.0)
    np.testing.assert_array_equal(told, velocity)


@pytest.mark.parametrize("kind", ["velocity", "x0"])
def test_with_r_equal_to_t_it_is_flow_matching(kind, monkeypatch):
    """The loss is that of the diffusion family, whose network is not told that t - r is 0."""
    monkeypatch.setattr(meanflow, "TIME_SCALE", 1.0)
    kind = f"diffusion.parameterization={kind}"
    config = config_of(kind, "meanflow.instant=1.0", "meanflow.guidance=1.0", "meanflow.kappa=0.0")
    family, keys = load_family(config), keys_of(3)
    params = moved(init(family))
    spec = f"{ROOT}/configs/shapes_diffusion.py:smoke"
    same = ("data.resolution=8", "model.depth=1", kind, "diffusion.weighting=velocity")
    net = dict(params["model"]["net"])
    interval = net.pop("vector")
    told = sine_time(jnp.zeros(1), meanflow.INTERVAL_CHANNELS)[0] @ interval["kernel"]
    bias = net["pooled"]["bias"] + interval["bias"] + told
    net["pooled"] = {**net["pooled"], "bias": bias}
    plain = {"model": {**params["model"], "net": net}}
    expected, metrics = loss_of(load_family(configs.load(spec, same)), plain, keys)
    found, _ = loss_of(family, params, keys)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found, metrics["velocity_mse"], rtol=1e-4)


def test_the_first_loss_is_the_mean_square_of_the_guided_velocity():
    """A fresh network predicts zero, so that omega (noise - x0) is left, whatever r is."""
    config = config_of(
        "diffusion.parameterization=velocity", "meanflow.guidance=3.0", "meanflow.kappa=0.5"
    )
    family, keys = load_family(config), keys_of(3)
    x0 = to_unit(batch_of()["image"])
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, 3))(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(noise_keys)
    loss, _ = loss_of(family, init(family), keys)
    np.testing.assert_allclose(loss, 1.5**2 * jnp.square(noise - x0).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_large_errors_weigh_less_in_training(power):
    """error / (error + c)^power, and in validation the error itself."""
    family = load_family(config_of(f"meanflow.power={power}"))
    params = moved(init(family))
    loss, metrics = loss_of(family, params, keys_of(3), train=True)
    error = metrics["error"]
    assert error.max() > 1.5 * error.min()
    np.testing.assert_allclose(loss, error / (error + 1e-3) ** power, rtol=1e-5)
    loss, metrics = loss_of(family, params, keys_of(3), train=False)
    np.testing.assert_array_equal(loss, metrics["error"])


def test_times_of_training():
    """r <= t, and r = t for three quarters: 4,096 draws have a standard error of 0.007."""
    denoiser = diffusion.make_denoiser(config_of(), vector=meanflow.INTERVAL_CHANNELS)
    time_keys, r_keys = keys_of(4, 4096), keys_of(5, 4096)
    r, t = meanflow.draw_interval(denoiser, time_keys, r_keys, 0.75)
    assert (r <= t).all() and (r > 0.0).all() and (t < 1.0).all()
    assert abs((r == t).mean() - 0.75) < 0.03
    alone = denoiser.draw_times(time_keys)
    np.testing.assert_array_equal(t[r == t], alone[r == t])
    np.testing.assert_allclose(jnp.where(r == alone, t, r)[r < t].mean(), alone.mean(), atol=0.02)


@functools.cache
def trained():
    """A red or a blue picture for two captions, after 300 steps on a batch of 16."""
    family = load_family(config_of())
    optimizer, batch = optax.adam(3e-3), batch_of(16)
    params = init(family)

    def mean_loss(params, keys):
        return family.losses["model"](params, Context({}, FROZEN, None, 0, batch, keys))[0].mean()

    @jax.jit
    def train(params, state):
        def step(carry, i):
            params, state = carry
            keys = jax.random.split(jax.random.fold_in(jax.random.key(1), i), 16)
            updates, state = optimizer.update(jax.grad(mean_loss)(params, keys), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), jnp.arange(300))[0][0]

    return family, train(params, optimizer.init(params))


def draw(family, params, keys, batch, steps=1):
    variables = Variables(params, {}, FROZEN)
    sample = functools.partial(family.abilities["sample"], steps=steps, candidates=1)
    return np.asarray(jax.jit(sample)(variables, {"text": batch["text"]}, keys), int)


@pytest.mark.parametrize("steps", [1, 2])
def test_it_draws_what_a_caption_means(steps):
    """Of 256 pictures, 251 were right with one call of the network, and 255 with two."""
    drawn = draw(*trained(), keys_of(3, 64), batch_of(64), steps)
    assert drawn.shape == (64, SIDE, SIDE, 3)
    error = np.abs(drawn.mean((1, 2)) - COLOURS[np.arange(64) % 2]).max(1)
    assert np.median(error) < 10 and (error < 40).mean() > 0.9


def test_a_picture_does_not_depend_on_its_batch():
    family, params = trained()
    together = draw(family, params, keys_of(3), batch_of())
    alone = draw(family, params, keys_of(3)[2:3], jax.tree.map(lambda a: a[2:3], batch_of()))
    assert np.abs(alone[0] - together[2]).max() <= 1


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_is_one_call_of_the_network(steps):
    """And a call is of one row a picture: guidance costs nothing in drawing."""
    config, calls = config_of(), []
    denoiser = diffusion.make_denoiser(config, vector=meanflow.INTERVAL_CHANNELS)

    def predict(params, x, *rest):
        calls.append(len(x))
        return jnp.zeros_like(x)

    counted = denoiser._replace(predict=predict)
    sample = meanflow.make_sample(counted, make_conditioning(config))
    params = jax.jit(denoiser.init)(jax.random.key(0), batch_of())
    variables = Variables({"model": params}, {}, FROZEN)
    with jax.disable_jit():  # a scan calls its function once for each step
        sample(variables, batch_of(), keys_of(3), steps=steps)
    assert calls == [4] * steps


def test_bad_fields():
    config = configs.copy(config_of())
    config.diffusion.schedule = "cosine"
    with pytest.raises(ValueError, match=r"diffusion.schedule is unknown: diffusion has param"):
        meanflow.make(config)
