"""Changes of gradients before the optimizer sees them, set from `config.optim`.

One acts on each example before the mean (`clip_examples`), one on the mean of the whole step
(`gradient_noise`). Together they are the two halves of DP-SGD (arXiv 1607.00133, algorithm 1).
"""

from collections.abc import Callable

import jax
import optax


def make_gradient_transforms(config) -> dict[str, Callable | None]:
    """Return the arguments `per_example` and `after_mean` of `make_step`, None where not asked for.

    config: `config.optim`. Raises ValueError for negative settings.
    """
    for name in ("clip_examples", "gradient_noise"):
        if config[name] < 0:
            raise ValueError(f"optim.{name} is {config[name]}: it is 0, for none, or more")
    limit, deviation = config.clip_examples, config.gradient_noise
    return {
        "per_example": clip_to_norm(limit) if limit else None,
        "after_mean": add_noise(deviation) if deviation else None,
    }


def clip_to_norm(limit: float) -> Callable:
    """Return a function that scales a gradient tree down to a global norm of at most `limit`."""

    def clip(gradients):
        norm = optax.global_norm(gradients)
        scale = jax.numpy.minimum(1.0, limit / jax.numpy.maximum(norm, 1e-12))
        return jax.tree.map(lambda x: x * scale, gradients)

    return clip


def add_noise(deviation: float) -> Callable:
    """Return a function (gradients, key) that adds Gaussian noise of this standard deviation."""

    def noisy(gradients, key):
        leaves, tree = jax.tree.flatten(gradients)
        keys = jax.random.split(key, len(leaves))
        noise = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
        return tree.unflatten([x + deviation * n for x, n in zip(leaves, noise, strict=True)])

    return noisy
