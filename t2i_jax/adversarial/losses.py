"""The losses of generator and discriminator as functions of logits.

A positive logit means "real". Every loss is minimised and returns one value per logit. A third set
of pictures (real ones with the wrong caption, arXiv 1605.05396) is therefore one more call of
`fake`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import relu, softplus
from jaxtyping import Array, Float

from t2i_jax.core.registry import did_you_mean

LossFunction = Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]]


class Adversarial(NamedTuple):
    """The three parts of an adversarial loss, each logits [...] -> loss [...].

    real: the discriminator's loss on logits of pictures that it should call real.
    fake: the discriminator's loss on logits of pictures that it should call fake.
    fool: the generator's loss on logits of its own pictures.
    """

    real: LossFunction
    fake: LossFunction
    fool: LossFunction


def _cross_entropy(target):
    # log sigmoid(x) = -softplus(-x) and log(1 - sigmoid(x)) = -softplus(x)
    return lambda logits: target * softplus(-logits) + (1.0 - target) * softplus(logits)


def _square(target):
    return lambda logits: 0.5 * (logits - target) ** 2


# name: (target of the real pictures) -> loss. The target is 1, or less with label smoothing.
LABELLED = {
    # arXiv 1406.2661, equation 1: the generator maximises what the discriminator minimises
    "minimax": lambda target: Adversarial(
        _cross_entropy(target), softplus, lambda logits: -softplus(logits)
    ),
    # The same, section 3: the generator maximises log D(G(z)). Its gradient does not vanish where
    # the discriminator is confident.
    "nonsaturating": lambda target: Adversarial(
        _cross_entropy(target), softplus, _cross_entropy(1.0)
    ),
    # arXiv 1611.04076, equation 9: targets 1 for real, 0 for fake, 1 for the generator
    "least_squares": lambda target: Adversarial(_square(target), _square(0.0), _square(1.0)),
}
UNLABELLED = {
    # arXiv 1705.02894; 1802.05957, equations 16 and 17
    "hinge": Adversarial(
        lambda logits: relu(1.0 - logits), lambda logits: relu(1.0 + logits), jnp.negative
    ),
    # arXiv 1701.07875, equations 2 and 3; the critic needs a Lipschitz constraint, such as
    # `penalties.gradient_penalty`
    "wasserstein": Adversarial(jnp.negative, lambda logits: logits, jnp.negative),
}
NAMES = (*LABELLED, *UNLABELLED)


def make_losses(name: str, smoothing: float = 0.0) -> Adversarial:
    """Return the losses called `name`, one of NAMES.

    smoothing: in [0, 0.5), is subtracted from the target 1 of the real pictures. The fake ones keep
        their target (one-sided label smoothing, arXiv 1606.03498, section 3.4).

    Raises ValueError for an unknown name, for smoothing outside that range, and for smoothing of a
    loss that has no labels.
    """
    if name not in NAMES:
        raise ValueError(
            f"there is no adversarial loss {name!r}: there are {', '.join(NAMES)}"
            f"{did_you_mean(name, NAMES)}"
        )
    if not 0.0 <= smoothing < 0.5:
        raise ValueError(f"label smoothing = {smoothing}: it can be from 0 to below 0.5")
    if name in LABELLED:
        return LABELLED[name](1.0 - smoothing)
    if smoothing:
        raise ValueError(
            f"the loss {name!r} has no labels to smooth: smoothing can be used with "
            f"{', '.join(LABELLED)}"
        )
    return UNLABELLED[name]


def relativistic(
    higher: Float[Array, "*shape"], lower: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return -log sigmoid(higher - lower): the loss of wanting one logit above the other.

    With the logits of a real picture and of its own imitation, the discriminator's loss is
    relativistic(real, fake), and the generator's relativistic(fake, real). Source: arXiv
    1807.00734, the relativistic standard GAN.
    """
    return softplus(lower - higher)
