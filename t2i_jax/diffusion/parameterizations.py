"""What the network predicts (x0, noise or velocity), how one follows from another, and how their errors are weighted.

Each kind is a combination a x0 + b noise. With x_t = alpha x0 + sigma noise that makes two linear equations, and their
determinant alpha b - sigma a is all that conversions and weights need: -sigma for x0, alpha for the noise, 1 for the
velocity. `c` is `schedule(t)` everywhere, with t in a shape that broadcasts against the images, such as [B, 1, 1, 1].
"""

import jax
import jax.numpy as jnp

from t2i_jax.diffusion.schedules import FLOOR, Coefficients, log_snr

KINDS = ("x0", "noise", "velocity")
LARGEST_WEIGHT = 400.0  # 1 / 0.05²: velocity weighting of an x0 prediction stops growing below sigma = 0.05


def target(kind: str, x0, noise, c: Coefficients):
    """What a network of this kind should predict, of the shape of x0."""
    a, b = _combination(kind, c)
    return a * x0 + b * noise


def to_x0(kind: str, prediction, x_t, c: Coefficients):
    """x0 from a prediction of `kind` at x_t. From the noise it divides by alpha, held at FLOOR or above."""
    if kind == "x0":
        return prediction
    _, b = _combination(kind, c)
    return (b * x_t - c.sigma * prediction) / _determinant(kind, c)


def to_noise(kind: str, prediction, x_t, c: Coefficients):
    """The noise from a prediction of `kind` at x_t. From x0 it divides by sigma, held at FLOOR or above."""
    if kind == "noise":
        return prediction
    a, _ = _combination(kind, c)
    return (c.alpha * prediction - a * x_t) / _determinant(kind, c)


def convert(kind: str, to: str, prediction, x_t, c: Coefficients):
    """A prediction of `kind` at x_t as one of the kind `to`. Raises ValueError for a kind there is not."""
    if kind == to:
        return prediction
    return target(to, to_x0(kind, prediction, x_t, c), to_noise(kind, prediction, x_t, c), c)


# name: (the kind of error it weights, weight as a function of log-SNR)
WEIGHTINGS = {
    "uniform": (None, jnp.ones_like),  # the network's own kind
    "x0": ("x0", jnp.ones_like),
    "noise": ("noise", jnp.ones_like),  # the SNR on x0 (the simple loss of arXiv 2006.11239, equation 14)
    "velocity": ("velocity", jnp.ones_like),
    "min_snr": ("x0", lambda log_snr: jnp.minimum(jnp.exp(log_snr), 5.0)),  # arXiv 2303.09556, gamma = 5
    "sigmoid": ("noise", lambda log_snr: jax.nn.sigmoid(2.0 - log_snr)),  # arXiv 2303.00848, k = 2
}


def weight(name: str, kind: str, c: Coefficients):
    """The weight, of the shape of c.alpha, on the squared error of a prediction of `kind` that makes weighting `name`.

    "x0", "noise" and "velocity" are the plain squared error of that kind, whatever the network predicts; "uniform" is
    that of its own kind. At a given x_t an error e of one kind is (determinant / determinant of the other) e of
    another. At most LARGEST_WEIGHT. Raises ValueError for an unknown name or kind.
    """
    if name not in WEIGHTINGS:
        raise ValueError(f"there is no weighting {name!r}: there are {', '.join(WEIGHTINGS)}")
    on, function = WEIGHTINGS[name]
    ratio = (_determinant(on or kind, c) / _determinant(kind, c)) ** 2
    return jnp.minimum(function(log_snr(c)) * ratio, LARGEST_WEIGHT)


def _combination(kind: str, c: Coefficients):
    """(a, b) where a x0 + b noise is what a network of this kind predicts."""
    kinds = {"x0": (1.0, 0.0), "noise": (0.0, 1.0), "velocity": (c.velocity_x0, c.velocity_noise)}
    return _of_kind(kinds, kind)


def _determinant(kind: str, c: Coefficients):
    """alpha b - sigma a of that kind, its size held at FLOOR or above."""
    kinds = {
        "x0": -jnp.maximum(c.sigma, FLOOR),
        "noise": jnp.maximum(c.alpha, FLOOR),
        "velocity": jnp.ones_like(c.alpha),
    }
    return _of_kind(kinds, kind)


def _of_kind(kinds: dict, kind: str):
    if kind not in kinds:
        raise ValueError(f"there is no parameterization {kind!r}: there are {', '.join(kinds)}")
    return kinds[kind]
