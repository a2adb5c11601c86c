"""Pictures changed at random on the device: training data, with captions that stay true; and what a discriminator sees.

An augmentation takes float pictures x [B, H, W, C] in [-1, 1], one key an example [B] and how strong it may be, a Python
number; it gives x [B, H, W, C], is differentiable in x, and draws from an example's own key alone, so that a result does
not depend on how a batch is split.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from t2i_jax.data.source import Source
from t2i_jax.families.family import fold_in_each
from t2i_jax.models.layers import from_unit, to_unit

STRONGEST = {"flip": 1.0, "rotation": 180.0, "scale": 1.0, "crop": 0.5, "colour": 1.0, "noise": 1.0}  # of `config.augment`


def flipped(keys, probability: float):
    """Which examples `flip` mirrors: bool [B]."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)


def flip(x, keys, probability: float):
    """Mirrored left to right with this probability."""
    return _choose(flipped(keys, probability), x[:, :, ::-1], x)


def rotate_and_scale(x, keys, degrees: float, change: float):
    """Turned either way by up to `degrees`, and `change` larger or smaller at most: by 1 / (1 + change) to 1 + change."""
    turn, power = _uniform(keys, 2, -1.0, 1.0)
    return resample(x, jnp.deg2rad(degrees * turn), (1.0 + change) ** power)


def resample(x, angle, zoom):
    """Turned counter-clockwise by angle [B] (radians) and enlarged zoom [B] times, both about the middle.

    Bilinear; what comes in from outside is the nearest pixel of the border.
    """
    middle = (np.array(x.shape[1:3]) - 1) / 2
    down, right = np.mgrid[: x.shape[1], : x.shape[2]] - middle[:, None, None]  # of the middle, [H, W]
    cos, sin = ((f(angle) / zoom)[:, None, None] for f in (jnp.cos, jnp.sin))
    rows, columns = cos * down + sin * right + middle[0], cos * right - sin * down + middle[1]

    def channel(picture, rows, columns):
        return map_coordinates(picture, [rows, columns], order=1, mode="nearest")

    return jax.vmap(jax.vmap(channel, (-1, None, None), -1))(x, rows, columns)


def crop(x, keys, fraction: float, fill: float | None = None):
    """Moved by whole pixels, up to this fraction of the sides; what comes in is `fill`, or the border where it is None."""
    most = np.array([int(side * fraction + 0.5) for side in x.shape[1:3]])
    return shift(x, jax.vmap(lambda key: jax.random.randint(key, (2,), -most, most + 1))(keys), fill)


def shift(x, by, fill: float | None = None):
    """Moved by by [B, 2] whole pixels, down and right; what comes in is `fill`, or the border where it is None."""
    how = {"mode": "clip"} if fill is None else {"mode": "fill", "fill_value": fill}

    def move(picture, by):
        rows, columns = (np.arange(side) - way for side, way in zip(picture.shape, by, strict=False))
        picture = picture.at[rows].get(wrap_negative_indices=False, **how)
        return picture.at[:, columns].get(wrap_negative_indices=False, **how)

    return jax.vmap(move)(x, by)


def colour(x, keys, strength: float = 1.0):
    """Brightness, saturation and contrast, in this order; at strength 1 as DiffAugment has them (arXiv 2006.10738).

    Brightness changes by up to strength / 2, saturation by a factor of 1 +- strength, contrast of 1 +- strength / 2.
    """
    brightness, saturation, contrast = (part[:, None, None, None] for part in _uniform(keys, 3, -strength, strength))
    x = x + brightness / 2
    grey = x.mean(-1, keepdims=True)
    x = grey + (1 + saturation) * (x - grey)
    mean = x.mean((1, 2, 3), keepdims=True)
    return mean + (1 + contrast / 2) * (x - mean)


def noise(x, keys, deviation: float):
    """With Gaussian noise of this standard deviation, of its own for every pixel and channel."""
    return x + deviation * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys)


def cutout(x, keys, fraction: float = 0.5):
    """With 0 in a rectangle of this fraction of the sides, whose middle is anywhere in the picture (arXiv 1708.04552)."""

    def inside(keys, side):
        cut = int(side * fraction + 0.5)
        first = jax.vmap(lambda key: jax.random.randint(key, (), 0, side + 1 - cut % 2))(keys)[:, None] - cut // 2
        return (np.arange(side) >= first) & (np.arange(side) < first + cut)

    rows, columns = (inside(fold_in_each(keys, axis), x.shape[1 + axis]) for axis in (0, 1))
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], 0, x)


POLICIES: Mapping[str, Callable] = {
    "colour": colour,
    "translation": lambda x, keys: crop(x, keys, 1 / 8, fill=0.0),
    "cutout": cutout,
}


def policies(policy: str) -> list[str]:
    """The names in "colour,cutout". ValueError, naming POLICIES, for one that is not among them."""
    names = [name.strip() for name in policy.split(",") if name.strip()]
    if unknown := [name for name in names if name not in POLICIES]:
        raise ValueError(f"there is no differentiable augmentation {unknown[0]!r}: there are {', '.join(POLICIES)}")
    return names


def differentiable(policy: str, x, keys):
    """DiffAugment (arXiv 2006.10738): what a discriminator sees of real and made pictures x, in every training step.

    policy: names of POLICIES with commas between, or "" for none. Raises ValueError for any other name.
    """
    for name in policies(policy):
        x = POLICIES[name](x, fold_in_each(keys, list(POLICIES).index(name)))
    return x


def make(config, source: Source) -> tuple[Callable | None, dict[str, Sequence[str]]]:
    """(augment, variants) of `config.augment`, {name: strength, 0 for none}, for the training data `source`.

    augment: (batch, keys [B]) -> batch with other uint8 pictures, each with the caption that is true of it; None if nothing
        is asked for.
    variants: {name: captions} of the augmentations asked for that change captions, for `loader.tokenise`.
    Raises ValueError if a strength is out of range, or the source does not say that its captions stay true.
    """
    strengths = dict(config)
    used = [name for name, strength in strengths.items() if strength]
    for name in used:
        _refuse_lies(name, strengths[name], source)
    variants = {name: source.variants[name] for name in used if list(source.variants[name]) != list(source.captions)}
    if wrong := sorted(set(variants) - {"flip"}):
        raise ValueError(f"{wrong[0]} cannot change captions, as it does in this data: only a flip either happens or does not")

    def augment(batch, keys):
        x, text = to_unit(batch["image"]), batch["text"]
        own = {name: fold_in_each(keys, number) for number, name in enumerate(STRONGEST)}
        if strengths["flip"]:
            x = flip(x, own["flip"], strengths["flip"])
        if "flip" in variants:
            chosen = flipped(own["flip"], strengths["flip"])
            text = jax.tree.map(lambda new, old: _choose(chosen, new, old), batch["variants"]["flip"], text)
        if strengths["rotation"] or strengths["scale"]:
            x = rotate_and_scale(x, own["rotation"], strengths["rotation"], strengths["scale"])
        for name, change in {"crop": crop, "colour": colour, "noise": noise}.items():
            x = change(x, own[name], strengths[name]) if strengths[name] else x
        plain = {name: value for name, value in batch.items() if name != "variants"}
        return {**plain, "image": from_unit(x), "text": text}

    return (augment if used else None), variants


def _refuse_lies(name, strength, source):
    if not 0 < strength <= STRONGEST[name]:
        raise ValueError(f"augment.{name} is {strength:g}: it can be 0, for none, to {STRONGEST[name]:g}")
    if name not in source.variants:
        raise ValueError(
            f"augment.{name} is refused: this data does not declare that its captions stay true under it (mirrored, what "
            f"was left is right); it declares {', '.join(source.variants) or 'none'}. A folder declares data.augmentations."
        )


def _uniform(keys, count, low, high):
    """`count` arrays of numbers [B]."""
    return jax.vmap(lambda key: jax.random.uniform(key, (count,), minval=low, maxval=high))(keys).T


def _choose(chosen, new, old):
    """`new` [B, ...] of the examples that are chosen [B], `old` of the others."""
    return jnp.where(chosen.reshape(-1, *[1] * (old.ndim - 1)), new, old)
