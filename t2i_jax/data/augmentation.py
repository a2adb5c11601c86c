"""Augmentation: training pictures changed at random on the device, with captions that stay true.

An augmentation takes float pictures x [B, H, W, C] in [-1, 1], one random key per example [B], and
its strength, a Python number. It returns pictures of the same shape, and is differentiable in x.
It draws from an example's own key alone, so that a result does not depend on how a batch is split.

`make_augment` combines them as `config.augment` asks. DiffAugment, of what a discriminator takes,
is in adversarial/diff_augment.py.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import derive_keys
from t2i_jax.core.source import Source
from t2i_jax.core.types import AnyArray

# The fields of `config.augment`. 0 is for none. The place of a name is the number from which its
# random keys are derived: add new ones at the end.
FIELDS = {
    "flip": Field(0.0, "probability of mirroring a picture left to right", 0.0, 1.0),
    "rotation": Field(0.0, "largest rotation either way, in degrees", 0.0, 180.0),
    "scale": Field(0.0, "largest change of size: 0.2 is 1.2 times at most", 0.0, 1.0),
    "crop": Field(0.0, "largest shift, as a fraction of the side", 0.0, 0.5),
    "colour": Field(0.0, "strength of brightness, saturation and contrast", 0.0, 1.0),
    "noise": Field(0.0, "standard deviation of noise, of pictures in [-1, 1]", 0.0, 1.0),
}


def make_augment(
    config: Mapping[str, float], source: Source
) -> tuple[Callable | None, dict[str, Sequence[str]]]:
    """Return (augment, variants) for the training data `source`.

    config: `config.augment`, {name: strength}.
    augment: (batch, keys [B]) -> batch with other uint8 pictures, each with the caption that is
        true of it. None if `config` asks for nothing.
    variants: {name: captions} of the augmentations in use that change captions, for
        `runs.columns.tokenise`.
    Raises ValueError if a strength is out of range, or if `source` does not declare that its
    captions stay true.
    """
    strengths = dict(config)
    used = [name for name, strength in strengths.items() if strength]
    for name in used:
        _check_allowed(name, strengths[name], source)
    variants = {
        name: source.variants[name]
        for name in used
        if list(source.variants[name]) != list(source.captions)
    }
    if wrong := sorted(set(variants) - {"flip"}):
        raise ValueError(
            f"{wrong[0]} cannot change captions, as it does in this data: only a flip either "
            f"happens or does not"
        )

    def augment(batch, keys):
        x, text = to_unit(batch["image"]), batch["text"]
        own_keys = {name: derive_keys(keys, number) for number, name in enumerate(FIELDS)}
        if strengths["flip"]:
            x = flip(x, own_keys["flip"], strengths["flip"])
        if "flip" in variants:
            flipped = is_flipped(own_keys["flip"], strengths["flip"])
            text = jax.tree.map(
                lambda new, old: _select(flipped, new, old), batch["variants"]["flip"], text
            )
        if strengths["rotation"] or strengths["scale"]:
            x = rotate_and_scale(x, own_keys["rotation"], strengths["rotation"], strengths["scale"])
        for name, change in {"crop": crop, "colour": colour, "noise": noise}.items():
            x = change(x, own_keys[name], strengths[name]) if strengths[name] else x
        rest = {name: value for name, value in batch.items() if name != "variants"}
        return {**rest, "image": from_unit(x), "text": text}

    return (augment if used else None), variants


def flip(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], probability: float
) -> Float[Array, "B H W C"]:
    """Mirror pictures left to right with this probability."""
    return _select(is_flipped(keys, probability), x[:, :, ::-1], x)


def is_flipped(keys: Key[Array, "B"], probability: float) -> Bool[Array, "B"]:
    """Return which examples `flip` mirrors."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)


def rotate_and_scale(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], degrees: float, change: float
) -> Float[Array, "B H W C"]:
    """Rotate by up to `degrees` either way, and scale by 1 / (1 + change) to 1 + change."""
    turn, power = _uniform(keys, 2, -1.0, 1.0)
    return resample(x, jnp.deg2rad(degrees * turn), (1.0 + change) ** power)


def resample(
    x: Float[AnyArray, "B H W C"], angle: Float[AnyArray, "B"], zoom: Float[AnyArray, "B"]
) -> Float[Array, "B H W C"]:
    """Rotate counter-clockwise by `angle` (radians) and enlarge `zoom` times, about the centre.

    Bilinear. What comes in from outside is the nearest pixel of the border.
    """
    centre = (np.array(x.shape[1:3]) - 1) / 2
    down, right = np.mgrid[: x.shape[1], : x.shape[2]] - centre[:, None, None]  # [H, W] each
    cos, sin = ((f(angle) / zoom)[:, None, None] for f in (jnp.cos, jnp.sin))
    rows, columns = cos * down + sin * right + centre[0], cos * right - sin * down + centre[1]

    def resample_channel(picture, rows, columns):
        return map_coordinates(picture, [rows, columns], order=1, mode="nearest")

    return jax.vmap(jax.vmap(resample_channel, (-1, None, None), -1))(x, rows, columns)


def crop(
    x: Float[AnyArray, "B H W C"],
    keys: Key[Array, "B"],
    fraction: float,
    fill: float | None = None,
) -> Float[Array, "B H W C"]:
    """Shift by whole pixels, up to this fraction of the sides.

    What comes in is `fill`, or the nearest pixel of the border if it is None.
    """
    most = np.array([int(side * fraction + 0.5) for side in x.shape[1:3]])
    offset = jax.vmap(lambda key: jax.random.randint(key, (2,), -most, most + 1))(keys)
    return shift(x, offset, fill)


def shift(
    x: Float[AnyArray, "B H W C"], offset: Int[AnyArray, "B 2"], fill: float | None = None
) -> Float[Array, "B H W C"]:
    """Shift by `offset`, whole pixels down and to the right.

    What comes in is `fill`, or the nearest pixel of the border if it is None.
    """
    outside = {"mode": "clip"} if fill is None else {"mode": "fill", "fill_value": fill}

    def move(picture, offset):
        rows, columns = (
            np.arange(side) - pixels for side, pixels in zip(picture.shape, offset, strict=False)
        )
        picture = picture.at[rows].get(wrap_negative_indices=False, **outside)
        return picture.at[:, columns].get(wrap_negative_indices=False, **outside)

    return jax.vmap(move)(x, offset)


def colour(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], strength: float = 1.0
) -> Float[Array, "B H W C"]:
    """Change brightness, then saturation, then contrast.

    Brightness changes by up to strength / 2, saturation by a factor of 1 +- strength, contrast by
    a factor of 1 +- strength / 2. Strength 1 is that of DiffAugment (arXiv 2006.10738).
    """
    brightness, saturation, contrast = (
        part[:, None, None, None] for part in _uniform(keys, 3, -strength, strength)
    )
    x = x + brightness / 2
    grey = x.mean(-1, keepdims=True)
    x = grey + (1 + saturation) * (x - grey)
    mean = x.mean((1, 2, 3), keepdims=True)
    return mean + (1 + contrast / 2) * (x - mean)


def noise(
    x: Float[AnyArray, "B H W C"], keys: Key[Array, "B"], deviation: float
) -> Float[Array, "B H W C"]:
    """Add Gaussian noise of this standard deviation, independent for each pixel and channel."""
    normal = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)
    return jnp.asarray(x) + deviation * normal


def _check_allowed(name, strength, source):
    high = FIELDS[name].high
    if not 0 < strength <= high:
        raise ValueError(f"augment.{name} is {strength:g}: it can be 0, for none, to {high:g}")
    if name not in source.variants:
        raise ValueError(
            f"augment.{name} is refused: this data does not declare that its captions stay true "
            f"under it (mirrored, what was left is right); it declares "
            f"{', '.join(source.variants) or 'none'}. A folder declares data.augmentations."
        )


def _uniform(keys, count, low, high):
    """Return `count` arrays of uniform random numbers [B]."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,), minval=low, maxval=high))(keys).T


def _select(chosen, new, old):
    """Return `new` [B, ...] for the examples that are chosen [B], `old` for the others."""
    return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)
