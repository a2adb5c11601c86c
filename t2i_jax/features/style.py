"""Style by optimisation: the content of one picture in the style of another.

Source: arXiv 1508.06576. The pixels are optimised until, in a network that looks at pictures, the
maps of a deep layer are near those of the content, and the Gram matrices of all layers are near
those of the style. Each difference is relative to its target, so that the weights mean the same for
every network and layer (there, equations 1 and 4 have the factors of VGG).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, UInt8

from t2i_jax.core.types import AnyArray
from t2i_jax.features.extractor import Extractor
from t2i_jax.features.pixels import as_levels, layers

CONTENT_LAYER = "map2"
RATE = 4.0  # of Adam, in levels
SMOOTHNESS = 2e-3  # weight of the total variation, in levels


def stylize(
    extractor: Extractor,
    content: UInt8[np.ndarray, "H W 3"],
    style: UInt8[np.ndarray, "h w 3"],
    strength: float = 30.0,
    steps: int = 150,
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "steps"]]:
    """Return the content in the style, and the loss before each step.

    strength: weight of the style over that of the content.
    Nothing is random: the picture is optimised from the content on. Raises ValueError for a network
    without maps.
    """
    outputs = jax.eval_shape(
        lambda w, x: layers(extractor.apply, w, x), extractor.weights, _unit(content)
    )
    if CONTENT_LAYER not in outputs:
        raise ValueError(
            f"{extractor.name} gives no maps of its layers, by which a style is known: take "
            "another network, such as efficientnet_lite0"
        )
    given = (extractor.weights, _unit(content), _unit(style), strength)
    made, losses = _optimise(extractor.apply, steps, *given)
    return np.asarray(made), np.asarray(losses)


def gram(x: Float[AnyArray, "B h w c"]) -> Float[Array, "B c c"]:
    """Return the products of all pairs of channels, as a mean over the places."""
    return jnp.einsum("bhwc,bhwd->bcd", x, x) / (x.shape[1] * x.shape[2])


def relative_error(x: Float[Array, "*s"], target: Float[Array, "*s"]) -> Float[Array, ""]:
    """Return the squared distance from a target, over the square of the target."""
    return ((x - target) ** 2).sum() / jnp.maximum((target**2).sum(), 1e-12)


def _unit(picture) -> Any:
    return jnp.asarray(picture, jnp.float32)[None]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _optimise(apply, steps, weights, content, style, strength):
    def maps(x):
        return {name: y for name, y in layers(apply, weights, x).items() if name.startswith("map")}

    wanted = maps(content)[CONTENT_LAYER]
    grams = {name: gram(y) for name, y in maps(style).items()}
    optimizer = optax.adam(RATE)

    def loss(x):
        found = maps(x)
        of_style = [relative_error(gram(found[name]), grams[name]) for name in grams]
        rough = sum(jnp.abs(jnp.diff(x, axis=axis)).mean() for axis in (1, 2))
        of_content = relative_error(found[CONTENT_LAYER], wanted)
        return of_content + strength * sum(of_style) / len(of_style) + SMOOTHNESS * rough

    def step(state, _):
        x, moments = state
        value, gradient = jax.value_and_grad(loss)(x)
        updates, moments = optimizer.update(gradient, moments)
        return (jnp.clip(x + jnp.asarray(updates), 0, 255), moments), value

    start = (content, optimizer.init(content))
    (x, _), losses = jax.lax.scan(step, start, None, length=steps)
    return as_levels(x[0]), losses
