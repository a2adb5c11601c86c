"""What a network predicts: x0, the noise, or the velocity; conversions and loss weights.

Each kind is a combination a x0 + b noise. Together with x_t = alpha x0 + sigma noise this makes two
linear equations. Conversions and weights need only their determinant alpha b - sigma a, which is
-sigma for x0, alpha for the noise and 1 for the velocity.

`c` is `schedule(t)` everywhere, with t in a shape that broadcasts against the images, such as
[B, 1, 1, 1].
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.diffusion.schedules import Coefficients, log_snr

KINDS = ("x0", "noise", "velocity")
# = 1 / 0.05²: velocity weighting of an x0 prediction stops growing below sigma = 0.05.
MAX_WEIGHT = 400.0


def target(
    kind: str, x0: Float[AnyArray, "*shape"], noise: Float[AnyArray, "*shape"], c: Coefficients
) -> Float[AnyArray, "*shape"]:
    """Return what a network of this kind should predict."""
    a, b = _combination(kind, c)
    return a * x0 + b * noise


def to_x0(
    kind: str,
    prediction: Float[AnyArray, "*shape"],
    x_t: Float[AnyArray, "*shape"],
    c: Coefficients,
) -> Float[AnyArray, "*shape"]:
    """Return x0 from a prediction of `kind` at x_t.

    From the noise it divides by alpha, which is raised to `c.least`.
    """
    if kind == "x0":
        return prediction
    _, b = _combination(kind, c)
    return (b * x_t - c.sigma * prediction) / _determinant(kind, c)


def to_noise(
    kind: str,
    prediction: Float[AnyArray, "*shape"],
    x_t: Float[AnyArray, "*shape"],
    c: Coefficients,
) -> Float[AnyArray, "*shape"]:
    """Return the noise from a prediction of `kind` at x_t.

    From x0 it divides by sigma, which is raised to `c.least`.
    """
    if kind == "noise":
        return prediction
    a, _ = _combination(kind, c)
    return (c.alpha * prediction - a * x_t) / _determinant(kind, c)


def convert(
    kind: str,
    to: str,
    prediction: Float[AnyArray, "*shape"],
    x_t: Float[AnyArray, "*shape"],
    c: Coefficients,
) -> Float[AnyArray, "*shape"]:
    """Convert a prediction at x_t from one kind to another.

    Raises ValueError, naming KINDS, for an unknown kind.
    """
    if kind == to:
        return prediction
    return target(to, to_x0(kind, prediction, x_t, c), to_noise(kind, prediction, x_t, c), c)


# name: (the kind whose error it weights, or None for the network's own; weight of log-SNR)
WEIGHTINGS = {
    "uniform": (None, jnp.ones_like),
    "x0": ("x0", jnp.ones_like),
    # On x0 this is the SNR (the simple loss of arXiv 2006.11239, equation 14).
    "noise": ("noise", jnp.ones_like),
    "velocity": ("velocity", jnp.ones_like),
    # arXiv 2303.09556, gamma = 5
    "min_snr": ("x0", lambda log_snr: jnp.minimum(jnp.exp(log_snr), 5.0)),
    # arXiv 2303.00848, k = 2
    "sigmoid": ("noise", lambda log_snr: jax.nn.sigmoid(2.0 - log_snr)),
}


def weight(name: str, kind: str, c: Coefficients) -> Float[Array, "..."]:
    """Return the weight on the squared error of a prediction of `kind`, of the shape of c.alpha.

    "x0", "noise" and "velocity" give the plain squared error of that kind, whatever the network
    predicts; "uniform" gives that of the network's own kind. At a given x_t, an error e of one kind
    is an error (determinant / determinant of the other) e of another. The weight is at most
    MAX_WEIGHT. Raises ValueError for an unknown name or kind.
    """
    if name not in WEIGHTINGS:
        raise ValueError(f"there is no weighting {name!r}: there are {', '.join(WEIGHTINGS)}")
    on, function = WEIGHTINGS[name]
    ratio = (_determinant(on or kind, c) / _determinant(kind, c)) ** 2
    return jnp.minimum(function(log_snr(c)) * ratio, MAX_WEIGHT)


def _combination(kind: str, c: Coefficients):
    """Return (a, b): a network of this kind predicts a x0 + b noise."""
    kinds = {"x0": (1.0, 0.0), "noise": (0.0, 1.0), "velocity": (c.velocity_x0, c.velocity_noise)}
    return _of_kind(kinds, kind)


def _determinant(kind: str, c: Coefficients):
    """Return alpha b - sigma a of that kind, with an absolute value of at least `c.least`."""
    kinds = {
        "x0": -jnp.maximum(c.sigma, c.least),
        "noise": jnp.maximum(c.alpha, c.least),
        "velocity": jnp.ones_like(c.alpha),
    }
    return _of_kind(kinds, kind)


def _of_kind(kinds: Mapping[str, Any], kind: str):
    if kind not in kinds:
        raise ValueError(f"there is no parameterization {kind!r}: there are {', '.join(kinds)}")
    return kinds[kind]
