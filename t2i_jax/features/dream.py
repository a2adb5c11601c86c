"""DeepDream: a picture is changed so that a layer of a network answers more strongly.

Source: Mordvintsev, Olah and Tyka, "Inceptionism", 2015, and their published program: gradient
ascent on several sizes of the picture, small to large (octaves), each step on a picture that is
shifted by a few pixels at random (jitter).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from t2i_jax.features.extractor import Extractor
from t2i_jax.features.pixels import as_levels, check_layer, layers


def dream(
    extractor: Extractor,
    image: UInt8[np.ndarray, "H W 3"],
    layer: str = "map3",
    channel: int | None = None,
    octaves: int = 3,
    ratio: float = 1.4,
    steps: int = 20,
    rate: float = 2.0,
    jitter: int = 16,
    seed: int = 0,
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "octaves steps"]]:
    """Return the changed picture, and the score before each step of each octave.

    layer: one of `pixels.layers`. The score is the mean square of all its numbers, or the mean of
        one `channel`.
    octaves, ratio: how many sizes, and the ratio of the sides of one to the next smaller.
    rate: mean change of a pixel in a step, in levels.   jitter: the largest shift, in pixels.
    The same seed gives the same picture. Raises ValueError as `check_layer` does, and if the score
    does not change with the picture: some networks round their input.
    """
    check_layer(extractor, layer, channel)
    start, whole = jnp.asarray(image, jnp.float32), image.shape[:2]
    detail, scores = jnp.zeros((1, 1, 3)), []
    for octave in range(octaves):
        factor = ratio ** (octaves - 1 - octave)
        sides = [max(1, round(side / factor)) for side in whole]
        base = jax.image.resize(start, (*sides, 3), "linear")
        before = base + jax.image.resize(detail, (*sides, 3), "linear")
        key = jax.random.fold_in(jax.random.key(seed), octave)
        after, found, slopes = _climb(
            extractor.apply, layer, channel, steps, extractor.weights, before, key, rate, jitter
        )
        if not slopes.any():
            raise ValueError(
                f"{layer} of {extractor.name} has no gradient in this picture, so nothing can be "
                "changed by it: take another layer or network, such as efficientnet_lite0"
            )
        detail = after - base
        scores.append(found)
    return np.asarray(as_levels(after)), np.stack(scores)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _climb(apply, layer, channel, steps, weights, x, key, rate, jitter):
    def score(x):
        found = layers(apply, weights, x[None])[layer]
        return (found**2).mean() if channel is None else found[..., channel].mean()

    def step(x, key):
        shift = jax.random.randint(key, (2,), -jitter, jitter + 1)
        value, gradient = jax.value_and_grad(score)(jnp.roll(x, shift, (0, 1)))
        gradient = jnp.roll(gradient, -shift, (0, 1))
        slope = jnp.abs(gradient).mean()
        return jnp.clip(x + rate * gradient / (slope + 1e-12), 0, 255), (value, slope)

    x, (values, slopes) = jax.lax.scan(step, x, jax.random.split(key, steps))
    return x, values, slopes
