"""What private training spends: Renyi differential privacy of Poisson sampling and Gaussian noise.

A step draws each example with probability `rate` and adds noise to the sum of clipped gradients;
`noise` is its standard deviation over the clipping norm. Neighbours differ in one example that is
there or not (add or remove). Orders are whole numbers, for which the divergence is a finite sum.
Plain Python: nothing here imports JAX.
"""

import math

ORDERS = (*range(2, 65), *range(68, 129, 4), *range(144, 513, 16))
# How likely it is that a step draws more examples than its batch has room for (`expected_batch`).
LOG_OVERFLOW = math.log(1e-20)


def renyi_divergence(rate: float, noise: float, order: int) -> float:
    """Return the Renyi divergence of one step at `order`, in nats.

    Source: arXiv 1908.10530, section 3.3: log(A) / (order - 1), where A is the sum over k of
    binomial(order, k) (1 - rate)^(order - k) rate^k exp(k (k - 1) / (2 noise^2)).
    """
    if rate >= 1.0:
        return order / (2 * noise**2)
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    largest = max(terms)
    log_moment = largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
    return max(log_moment, 0.0) / (order - 1)


def epsilon_of(divergence: float, order: int, delta: float) -> float:
    """Return epsilon at `delta` of a mechanism of this Renyi divergence (arXiv 2004.00010, 12)."""
    return divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """Return what `steps` steps spend at `delta`, the least over all orders; 0 for no step."""
    if not steps:
        return 0.0
    found = (
        epsilon_of(steps * renyi_divergence(rate, noise, order), order, delta) for order in ORDERS
    )
    return max(min(found), 0.0)


def noise_for(rate: float, steps: int, delta: float, budget: float) -> float:
    """Return the least noise, rounded up to 0.01, with which `steps` steps spend at most `budget`.

    Raises ValueError if noise of 1,000 spends more.
    """
    low, high = 0, 100_000
    if epsilon(rate, high / 100, steps, delta) > budget:
        raise ValueError(f"no noise up to {high // 100:,} spends at most epsilon = {budget}")
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon(rate, middle / 100, steps, delta) <= budget:
            high = middle
        else:
            low = middle
    return high / 100


def log_of_overflow(rate: float, count: int, room: int) -> float:
    """Return a bound of log P(more than `room` of `count` examples are drawn).

    Chernoff's, for a binomial: -count KL(room / count || rate), where more than the mean has room.
    """
    share = room / count
    if share >= 1.0:
        return -math.inf
    if share <= rate:
        return 0.0
    rest = (1 - share) * math.log((1 - share) / (1 - rate))
    return -count * (share * math.log(share / rate) + rest)


def expected_batch(count: int, room: int) -> int:
    """Return the largest mean size of a batch that overflows `room` as seldom as LOG_OVERFLOW says.

    count: examples in all. Returns 0 if `room` is too small for one example.
    """
    sizes = range(min(count, room), 0, -1)
    return next((n for n in sizes if log_of_overflow(n / count, count, room) <= LOG_OVERFLOW), 0)


def delta_of_overflow(steps: int, budget: float) -> float:
    """Return the part of delta that batches with too many examples take, which are cut.

    With or without an example, a batch is cut with probability at most exp(LOG_OVERFLOW): then two
    runs may differ in any way (arXiv 2411.04205).
    """
    return steps * (1 + math.exp(min(budget, 500.0))) * math.exp(LOG_OVERFLOW)
