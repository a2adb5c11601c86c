"""The objectives of the two players as functions of logits, an example at a time.

A positive logit says "real". Every loss is to be minimised and gives one value a logit, so that a third set (real pictures
with the wrong caption, arXiv 1605.05396) is one more call of `fake`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.nn import relu, softplus

from t2i_jax.by_name import hint


class Adversarial(NamedTuple):
    """logits [B] -> loss [B].

    real, fake: the discriminator's, on logits of what it should call real and fake.   fool: the generator's, on those of fakes.
    """

    real: Callable
    fake: Callable
    fool: Callable


def _cross_entropy(target):
    # log sigmoid(x) = -softplus(-x) and log(1 - sigmoid(x)) = -softplus(x)
    return lambda logits: target * softplus(-logits) + (1.0 - target) * softplus(logits)


def _square(target):
    return lambda logits: 0.5 * (logits - target) ** 2


# The losses by the target of the real pictures: 1, or less with label smoothing.
LABELLED = {
    # arXiv 1406.2661, equation 1: the generator ascends what the discriminator descends
    "minimax": lambda target: Adversarial(_cross_entropy(target), softplus, lambda logits: -softplus(logits)),
    # The same, section 3: the generator maximises log D(G(z)), whose gradient does not vanish where D is sure
    "nonsaturating": lambda target: Adversarial(_cross_entropy(target), softplus, _cross_entropy(1.0)),
    # arXiv 1611.04076, equation 9: targets 1 for real, 0 for fake, 1 for the generator
    "least_squares": lambda target: Adversarial(_square(target), _square(0.0), _square(1.0)),
}
UNLABELLED = {
    # arXiv 1705.02894; 1802.05957, equations 16 and 17
    "hinge": Adversarial(lambda logits: relu(1.0 - logits), lambda logits: relu(1.0 + logits), jnp.negative),
    # arXiv 1701.07875, equations 2 and 3; the critic needs a Lipschitz constraint (`penalties.gradient_penalty`)
    "wasserstein": Adversarial(jnp.negative, lambda logits: logits, jnp.negative),
}
NAMES = (*LABELLED, *UNLABELLED)


def make_losses(name: str, smoothing: float = 0.0) -> Adversarial:
    """The losses called `name`, one of NAMES.

    smoothing: what is taken from the target 1 of the real pictures, in [0, 0.5); the fakes keep theirs (one-sided label
    smoothing, arXiv 1606.03498, section 3.4). Raises ValueError for an unknown name, for smoothing outside that range and
    for smoothing of a loss that has no labels.
    """
    if name not in NAMES:
        raise ValueError(f"there is no adversarial loss {name!r}: there are {', '.join(NAMES)}{hint(name, NAMES)}")
    if not 0.0 <= smoothing < 0.5:
        raise ValueError(f"label smoothing = {smoothing}: it can be from 0 to below 0.5")
    if name in LABELLED:
        return LABELLED[name](1.0 - smoothing)
    if smoothing:
        raise ValueError(f"the loss {name!r} has no labels to smooth: smoothing can be used with {', '.join(LABELLED)}")
    return UNLABELLED[name]
