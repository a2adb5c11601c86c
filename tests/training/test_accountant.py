"""The accountant against closed forms, hand-computed cases, and Google's dp-accounting."""

import math

import pytest

from t2i_jax.training import accountant


def test_without_sampling_it_is_the_gaussian_mechanism():
    """Renyi divergence of two Gaussians a norm apart: order / (2 noise^2) (arXiv 1702.07476)."""
    for order in accountant.ORDERS:
        assert accountant.renyi_divergence(1.0, 2.0, order) == pytest.approx(order / 8)
    # rate -> 1 is continuous.
    near = accountant.renyi_divergence(1 - 1e-9, 2.0, 5)
    assert near == pytest.approx(5 / 8, rel=1e-6)


def test_order_two_and_three_by_hand():
    """The sums written out: E[(1 - q + q L)^order], where E[L^k] = exp(k (k - 1) / 2 noise^2)."""
    rate, noise = 0.03, 0.8
    power = math.exp(1 / noise**2)
    two = 1 + rate**2 * (power - 1)
    assert accountant.renyi_divergence(rate, noise, 2) == pytest.approx(math.log(two), rel=1e-12)
    rest = 1 - rate
    three = rest**3 + 3 * rest**2 * rate + 3 * rest * rate**2 * power + rate**3 * power**3
    found = accountant.renyi_divergence(rate, noise, 3)
    assert found == pytest.approx(math.log(three) / 2, rel=1e-12)


def test_epsilon_by_hand():
    """One step without sampling, noise 4, delta 1e-5: the minimum over orders written out."""
    expected = min(
        a / 32 + math.log((a - 1) / a) - (math.log(1e-5) + math.log(a)) / (a - 1)
        for a in accountant.ORDERS
    )
    assert accountant.epsilon(1.0, 4.0, 1, 1e-5) == pytest.approx(expected, rel=1e-12)
    assert 0.8 < expected < 1.2  # the exact value of this mechanism (arXiv 1805.06530) is 0.93
    assert accountant.epsilon(1.0, 4.0, 0, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta", "expected"),
    [  # dp-accounting 0.6.0, RdpAccountant(ORDERS), of a composed PoissonSampledDpEvent
        (0.01, 1.1, 1000, 1e-5, 1.7252908180449444),
        (64 / 60000, 0.7, 10_000, 1e-6, 2.550234972001729),
        (0.005, 1.0, 4000, 1e-6, 2.2079289821066683),
        (1.0, 20.0, 100, 1e-5, 2.1680106367839715),
    ],
)
def test_it_agrees_with_dp_accounting(rate, noise, steps, delta, expected):
    assert accountant.epsilon(rate, noise, steps, delta) == pytest.approx(expected, rel=1e-9)


def test_the_noise_for_a_budget_is_the_least():
    noise = accountant.noise_for(0.005, 4000, 1e-6, 2.0)
    assert accountant.epsilon(0.005, noise, 4000, 1e-6) <= 2.0
    assert accountant.epsilon(0.005, noise - 0.01, 4000, 1e-6) > 2.0
    with pytest.raises(ValueError, match=r"no noise up to 1,000"):
        accountant.noise_for(1.0, 10**9, 1e-6, 0.001)


def test_the_bound_of_an_overflow_holds():
    """The probability of more than `room` of a binomial, summed exactly, is below it and near."""
    count, room = 400, 60
    for rate in (0.05, 0.1, 0.14):
        exact = math.fsum(
            math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
            for k in range(room + 1, count + 1)
        )
        bound = accountant.log_of_overflow(rate, count, room)
        assert math.log(exact) <= bound < math.log(exact) + 5
    assert accountant.log_of_overflow(0.5, 10, 10) == -math.inf
    assert accountant.log_of_overflow(0.5, 10, 4) == 0.0


def test_the_mean_batch_fits():
    mean = accountant.expected_batch(60_000, 256)
    assert accountant.log_of_overflow(mean / 60_000, 60_000, 256) <= math.log(1e-20)
    assert accountant.log_of_overflow((mean + 1) / 60_000, 60_000, 256) > math.log(1e-20)
    assert accountant.expected_batch(60_000, 8) == 0
    assert accountant.expected_batch(100, 200) == 100  # all of them
    assert accountant.delta_of_overflow(1000, 8.0) == pytest.approx(1e-17 * (1 + math.exp(8)))
