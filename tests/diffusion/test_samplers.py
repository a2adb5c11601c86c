"""Samplers against data that are Gaussian, where everything is known in closed form.

With data N(m, s²), E[x0 | x_t] = m + alpha s² / v (x_t - alpha m) where v = alpha² s² + sigma², and
the probability-flow ODE keeps (x_t - alpha m) / sqrt(v) constant, which maps any time to any other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.diffusion import tables
from t2i_jax.diffusion.samplers import (
    SAMPLERS,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_2m_sde,
    lcm,
    lms,
    make_sampler,
    tcd,
    time_grid,
)
from t2i_jax.diffusion.samplers.linear_multistep import ADAMS_BASHFORTH, _lagrange_weights
from t2i_jax.diffusion.schedules import SCHEDULES, make_schedule

MEAN, STD = 0.8, 0.5
NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8)), jnp.float32)
ORDERS = {"euler": 1, "ddim": 1, "heun": 2, "dpmpp_2m": 2, "unipc": 2, "plms": 2, "heun_sigma": 2}
# Of Stable Diffusion; between its points it is not smooth in t.
TABLE = tables.table(tables.signal(tables.betas("scaled_linear", 1000, 0.00085, 0.012)))


def _predict(schedule):
    def predict(x, t):
        c = schedule(t)
        x0 = MEAN + c.alpha * STD**2 / (c.alpha**2 * STD**2 + c.sigma**2) * (x - c.alpha * MEAN)
        return x0, (x - c.alpha * x0) / c.sigma

    return predict


def _sample(name, schedule, steps, x=NOISE, keys=None, start=1.0, end=0.0):
    function = make_sampler(name)
    times = end + (start - end) * time_grid(steps)
    return jax.jit(lambda x: function(_predict(schedule), x, times, schedule, keys))(x)


def _exact(schedule, x, start=1.0, end=0.0):
    (a, b), (v, w) = zip(
        *(
            (c.alpha, c.alpha**2 * STD**2 + c.sigma**2)
            for c in map(schedule, jnp.array([start, end]))
        ),
        strict=True,
    )
    return b * MEAN + jnp.sqrt(w / v) * (x - a * MEAN)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        (name, schedule)
        for name in ORDERS
        for schedule in ("rectified", "cosine")
        # Its error there is of order 3 on Gaussian data.
        if (name, schedule) != ("heun_sigma", "rectified")
    ],
)
def test_order_of_convergence(name, schedule):
    """Halving the step divides the error by 2 (order 1) or 4 (order 2).

    The tolerance is what the next order explains.

    Between t = 0.9 and 0.1, because over all of [0, 1] log-SNR is unbounded, and the h² of
    DPM-Solver++ comes with a log(1 / h).
    """
    schedule, span = make_schedule(schedule), {"start": 0.9, "end": 0.1}
    exact = _exact(schedule, NOISE, **span)
    errors = [jnp.abs(_sample(name, schedule, steps, **span) - exact).max() for steps in (32, 64)]
    assert abs(np.log2(errors[0] / errors[1]) - ORDERS[name]) < 0.2, errors


def test_order_of_lms():
    """Its order is 4 once it has seen four steps; the first ones leave an error of order 2."""
    schedule, span = make_schedule("cosine"), {"start": 0.9, "end": 0.1}
    exact = _exact(schedule, NOISE, **span)
    errors = [jnp.abs(_sample("lms", schedule, n, **span) - exact).max() for n in (32, 64)]
    assert 2 < np.log2(errors[0] / errors[1]) < 4
    assert errors[1] < jnp.abs(_sample("dpmpp_2m", schedule, 64, **span) - exact).max() / 3


@pytest.mark.parametrize("schedule", [*SCHEDULES, "table"])
@pytest.mark.parametrize("name", [*ORDERS, "lms"])
def test_from_noise_to_data(name, schedule):
    uneven = schedule in ("linear_beta", "table")
    schedule = TABLE if schedule == "table" else make_schedule(schedule)
    # Even times are far from even in log(alpha / sigma) there.
    tolerance = 0.03 if uneven else 0.003
    drawn = _sample(name, schedule, 100)
    np.testing.assert_allclose(
        drawn, _exact(schedule, NOISE), atol=0.05 if ORDERS.get(name) == 1 else tolerance
    )


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"euler", "heun"}))
def test_one_step_is_the_prediction(name):
    """One step to t = 0 gives x0 as the network predicts it."""
    keys = jax.random.split(jax.random.key(0), 4)
    for schedule in (make_schedule("rectified"), TABLE):
        drawn = _sample(name, schedule, 1, NOISE, keys)
        x0, _ = _predict(schedule)(NOISE, jnp.array(1.0))
        np.testing.assert_allclose(drawn, x0, atol=1e-5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m_sde"])
def test_fresh_noise_gives_the_right_distribution(name, schedule):
    """16,384 draws have standard errors of 0.004 and 0.003; 200 steps leave a bias of 0.005."""
    schedule = make_schedule(schedule)
    x = jax.random.normal(jax.random.key(1), (256, 64))
    keys = jax.random.split(jax.random.key(2), 256)
    drawn = _sample(name, schedule, 200, x, keys)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [MEAN, STD], atol=0.02)
    # DDPM forgets where it began, DDIM does not.
    correlation = np.corrcoef(np.ravel(x), np.ravel(drawn))[0, 1]
    assert correlation > 0.99 if name == "ddim" else correlation < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_example_is_alone(name):
    """Each picture depends on its own noise and key only."""
    schedule = make_schedule("rectified")
    keys = jax.random.split(jax.random.key(0), 4)
    together = _sample(name, schedule, 3, NOISE, keys)
    np.testing.assert_allclose(
        _sample(name, schedule, 3, NOISE[2:3], keys[2:3]), together[2:3], atol=1e-6
    )
    assert not np.allclose(together[0], together[1])


@pytest.mark.parametrize(
    ("name", "calls"),
    {**dict.fromkeys(SAMPLERS, 5), "heun": 9, "heun_sigma": 9, "plms": 6}.items(),
)
def test_number_of_network_calls(name, calls):
    """The scan compiles one copy of the network, which is called as often as stated."""
    schedule = make_schedule("rectified")
    traced, called = [], []

    def predict(x, t):
        traced.append(1)
        jax.debug.callback(lambda t: called.append(float(t)), t)
        return _predict(schedule)(x, t)

    SAMPLERS[name](predict, NOISE, time_grid(5), schedule, jax.random.split(jax.random.key(0), 4))
    jax.effects_barrier()
    # A scan may trace its body once more to settle types.
    assert len(called) == calls and len(traced) <= 2
    assert min(called) > 0.0  # never asked for the noise where there is none


def test_eta():
    schedule = make_schedule("cosine")
    keys = jax.random.split(jax.random.key(0), 4)
    arguments = _predict(schedule), NOISE, time_grid(6), schedule
    np.testing.assert_array_equal(ddim(*arguments, keys, eta=1.0), ddpm(*arguments, keys))
    np.testing.assert_allclose(ddim(*arguments, keys, eta=0.0), ddim(*arguments), atol=1e-6)
    with pytest.raises(ValueError, match="needs keys"):
        ddim(*arguments, eta=0.5)
    with pytest.raises(ValueError, match="needs keys"):
        ddpm(*arguments)


def test_ancestral_step_is_the_posterior():
    """One DDPM step from t to u: the mean and variance of q(x_u | x_t, x0) by Bayes' rule."""
    schedule = make_schedule("rectified")
    t, u, x0, x_t = jnp.array(0.6), jnp.array(0.5), 0.3, -0.2
    now, after = schedule(t), schedule(u)
    gain = now.alpha / after.alpha
    drift = now.sigma**2 - gain**2 * after.sigma**2  # the variance of q(x_t | x_u)
    precision = 1 / after.sigma**2 + gain**2 / drift
    mean = (after.alpha * x0 / after.sigma**2 + gain * x_t / drift) / precision

    def predict(x, t):
        c = schedule(t)
        return jnp.full_like(x, x0), (x - c.alpha * x0) / c.sigma

    x = jnp.full((2000, 10), x_t)
    drawn = ddpm(predict, x, jnp.stack([t, u]), schedule, jax.random.split(jax.random.key(0), 2000))
    np.testing.assert_allclose(drawn.mean(), mean, atol=0.01)
    np.testing.assert_allclose(drawn.var(), 1 / precision, rtol=0.05)


def test_a_perfect_consistency_model_needs_few_steps():
    """If the network gives the end of the ODE, LCM and TCD draw the right distribution at once."""
    schedule = make_schedule("cosine")

    def predict(x, t):
        c = schedule(t)
        x0 = _exact(schedule, x, t, 0.0)
        return x0, (x - c.alpha * x0) / c.sigma

    x = jax.random.normal(jax.random.key(1), (256, 64))
    keys = jax.random.split(jax.random.key(2), 256)
    drawn = lcm(predict, x, time_grid(3), schedule, keys)
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [MEAN, STD], atol=0.02)
    every = tcd(predict, x, time_grid(3), schedule, keys, gamma=1.0)
    np.testing.assert_allclose(every, drawn, atol=1e-5)
    none = tcd(predict, x, time_grid(3), schedule, keys, gamma=0.0)
    # The root of a rounding error is left of the fresh noise.
    np.testing.assert_allclose(none, ddim(predict, x, time_grid(3), schedule), atol=1e-3)


def test_sde_of_order_2_needs_fewer_steps():
    schedule, x = make_schedule("cosine"), jax.random.normal(jax.random.key(1), (256, 64))
    keys = jax.random.split(jax.random.key(2), 256)
    first, second = (
        abs(_sample(name, schedule, 20, x, keys).std() - STD) for name in ("ddpm", "dpmpp_2m_sde")
    )
    assert second < first / 2
    with pytest.raises(ValueError, match="needs keys"):
        dpmpp_2m_sde(_predict(schedule), x, time_grid(3), schedule)


def test_last_step_of_dpmpp():
    """The last step is DDIM's if it is told so, or if it is one of few."""
    schedule, times = make_schedule("cosine"), 0.1 + 0.8 * time_grid(6)
    predict = _predict(schedule)
    plain = dpmpp_2m(predict, NOISE, times, schedule)
    last = ddim(predict, dpmpp_2m(predict, NOISE, times[:-1], schedule), times[-2:], schedule)
    for options in ({"euler_at_final": True}, {"lower_order_final": True}):
        drawn = dpmpp_2m(predict, NOISE, times, schedule, **options)
        np.testing.assert_allclose(drawn, last, atol=1e-6)
    assert np.abs(plain - last).max() > 1e-3
    many = 0.1 + 0.8 * time_grid(15)
    np.testing.assert_array_equal(
        dpmpp_2m(predict, NOISE, many, schedule, lower_order_final=True),
        dpmpp_2m(predict, NOISE, many, schedule),
    )


def test_weights_of_the_past():
    """On equal steps they are Adams-Bashforth's; without a past LMS is DDIM."""
    weights = _lagrange_weights(jnp.arange(7, 0, -1.0))
    expected = -ADAMS_BASHFORTH[[0, 1, 2, 3, 3, 3]]  # a step is -1 long
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    schedule = make_schedule("linear_beta")
    two = jnp.array([0.9, 0.7])
    np.testing.assert_allclose(
        lms(_predict(schedule), NOISE, two, schedule),
        ddim(_predict(schedule), NOISE, two, schedule),
        atol=1e-6,
    )


def test_time_grid():
    np.testing.assert_allclose(time_grid(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(time_grid(2, 3.0), [1, 0.75, 0])
    with pytest.raises(ValueError, match="at least 1 step"):
        time_grid(0)


def test_unknown_sampler():
    with pytest.raises(ValueError, match=r"'unipcc'.*euler, heun.*did you mean 'unipc'"):
        make_sampler("unipcc")
