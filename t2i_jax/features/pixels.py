"""What a network says of float pictures, so that pixels can follow its gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from t2i_jax.core.types import AnyArray
from t2i_jax.features.extractor import Extractor


def layers(apply: Callable, weights: Any, pictures: Float[AnyArray, "B H W 3"]) -> dict[str, Any]:
    """Return the outputs of an extractor by name: "features", "logits", "map0", "map1", ...

    apply: of the `Extractor`. pictures: levels from 0 to 255.
    """
    found = dict(apply(weights, pictures))
    maps = found.pop("maps", ())
    return found | {f"map{i}": each for i, each in enumerate(maps)}


def check_layer(extractor: Extractor, layer: str, channel: int | None = None) -> None:
    """Raise ValueError, naming those there are, unless the network has this layer and channel."""
    picture = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    known = jax.eval_shape(lambda w, x: layers(extractor.apply, w, x), extractor.weights, picture)
    if layer not in known:
        raise ValueError(f"{extractor.name} has no layer {layer!r}: it has {', '.join(known)}")
    channels = known[layer].shape[-1]
    if channel is not None and not 0 <= channel < channels:
        raise ValueError(
            f"layer {layer!r} of {extractor.name} has no channel {channel}: 0 to {channels - 1}"
        )


def as_levels(x: Float[Array, "H W 3"]) -> UInt8[Array, "H W 3"]:
    """Return a float picture of levels from 0 to 255 as uint8."""
    return jnp.clip(jnp.round(x), 0, 255).astype(jnp.uint8)
