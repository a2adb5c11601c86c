"""Are word maps where they should be? Scored on `shapes`, where the mask of each object is known.

A map is coarse. It is enlarged to the size of the picture, scaled from 0 (its least number) to 1
(its greatest), and cut at a threshold. The threshold is chosen on other pictures. What is left is
compared with the mask of the objects that the words name, by intersection over union.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from t2i_jax.data.render import mask
from t2i_jax.data.shapes import undo_paraphrase
from t2i_jax.metrics.alignment import judge, parse_caption, read_picture
from t2i_jax.metrics.captioning import mean_interval
from t2i_jax.metrics.redraw import fit_places

THRESHOLDS = tuple(np.arange(2, 19) / 20)


class NamedObject(NamedTuple):
    """What one phrase of a caption names, in one picture.

    words: the places in the caption of the words for its size, colour and shape.
    mask: where it is, or where all of it are ("three small green squares").
    other: where the other object of the caption is, or None.
    """

    words: tuple[int, int, int]
    mask: Bool[np.ndarray, "R R"]
    other: Bool[np.ndarray, "R R"] | None = None


def objects_of(image: UInt8[np.ndarray, "R R 3"], caption: str) -> list[NamedObject]:
    """Return what the caption names and where it is; [] unless the picture shows it exactly.

    Raises ValueError if the caption is not in the grammar of training, or a paraphrase.
    """
    asked, count = parse_caption(caption), len(caption.split())
    if undo_paraphrase(caption) != caption:
        raise ValueError(f"a paraphrase has words at other places: {caption!r}")
    seen = read_picture(image)
    if not judge(seen, asked)["exact"]:
        return []
    placed = fit_places(image, seen)
    phrases = [(1, 2, 3)] if asked.kind in ("one", "count") else [(1, 2, 3), (-3, -2, -1)]
    masks = [
        mask([each for each in placed if each[:3] == description], len(image))
        for description in asked.objects[: len(phrases)]
    ]
    others = masks[::-1] if len(masks) > 1 else [None]
    return [
        NamedObject((words[0] % count, words[1] % count, words[2] % count), own, other)
        for words, own, other in zip(phrases, masks, others, strict=True)
    ]


def enlarged(maps: Float[np.ndarray, "*n h w"], side: int) -> Float[np.ndarray, "*n R R"]:
    """Return maps in the size of the picture, by linear interpolation between their cells."""
    factors = (*[1] * (maps.ndim - 2), side / maps.shape[-2], side / maps.shape[-1])
    return np.asarray(ndimage.zoom(maps, factors, order=1, mode="nearest", grid_mode=True))


def stretched(maps: Float[np.ndarray, "*n h w"]) -> Float[np.ndarray, "*n h w"]:
    """Return each map from 0 (its least number) to 1 (its greatest); zeros if all are equal."""
    low, high = (of(maps, axis=(-2, -1), keepdims=True) for of in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1.0)


def iou(
    found: Bool[np.ndarray, "*n R R"], true: Bool[np.ndarray, "*n R R"]
) -> Float[np.ndarray, "*n"]:
    """Return the intersection over the union of masks; 1 where both are empty."""
    both, either = (found & true).sum((-2, -1)), (found | true).sum((-2, -1))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def ious(
    maps: Float[np.ndarray, "n h w"], masks: Bool[np.ndarray, "n R R"], threshold: float
) -> Float[np.ndarray, "n"]:
    """Return the IoU of each map, cut at the threshold, with its mask."""
    return iou(stretched(enlarged(maps, masks.shape[-1])) >= threshold, masks)


def best_threshold(maps: Float[np.ndarray, "n h w"], masks: Bool[np.ndarray, "n R R"]) -> float:
    """Return the one of THRESHOLDS with the greatest mean IoU."""
    return max(THRESHOLDS, key=lambda threshold: ious(maps, masks, threshold).mean())


def named_objects(
    word_maps: Sequence[Float[np.ndarray, "_ h w"]],
    images: UInt8[np.ndarray, "N R R 3"],
    captions: Sequence[str],
) -> list[tuple[Float[np.ndarray, "3 h w"], NamedObject]]:
    """Return the objects in all pictures that show their captions exactly, and their words' maps.

    word_maps: of each picture, a map for each word of its caption.
    Raises ValueError if no picture shows its caption exactly.
    """
    found = [
        (maps[list(each.words)], each)
        for maps, image, caption in zip(word_maps, images, captions, strict=True)
        for each in objects_of(image, caption)
        if max(each.words) < len(maps)
    ]
    if not found:
        raise ValueError("no picture shows its caption exactly, so that masks are known")
    return found


def maps_and_masks(
    found: Sequence[tuple[Float[np.ndarray, "3 h w"], NamedObject]],
) -> dict[str, tuple[Float[np.ndarray, "n h w"], Bool[np.ndarray, "n R R"]]]:
    """Return {what: (maps, masks)} of `named_objects`.

    "noun": the map of the word for the shape. "phrase": the mean of those for size, colour and
    shape. "coarse_mask": the mask itself at the size of a map, for comparison.
    """
    masks = np.stack([each.mask for _, each in found])
    chosen = np.stack([maps for maps, _ in found])
    return {
        "noun": (chosen[:, -1], masks),
        "phrase": (chosen.mean(1), masks),
        "coarse_mask": (shrunk(masks, *chosen.shape[-2:]), masks),
    }


def told_apart(found: Sequence[tuple[Float[np.ndarray, "3 h w"], NamedObject]]) -> dict | None:
    """Return how often the map of a phrase is greater in its own object than in the other.

    Of captions with two objects, with a 95 % interval by bootstrap over objects; half is chance.
    None if there is no such caption.
    """
    own = [
        maps[each.mask].mean() > maps[each.other].mean()
        for maps, each in ((enlarged(m.mean(0), len(o.mask)), o) for m, o in found)
        if each.other is not None
    ]
    return mean_interval(np.array(own, float)) if own else None


def shrunk(masks: Bool[np.ndarray, "n R R"], rows: int, columns: int) -> Float[np.ndarray, "n h w"]:
    """Return the share of each cell that a mask covers."""
    count, side, _ = masks.shape
    return masks.reshape(count, rows, side // rows, columns, side // columns).mean((2, 4))


def score(pairs: dict, chosen: dict) -> dict:
    """Return {what: {"iou": mean and 95 % interval by bootstrap over objects, "threshold"}}.

    pairs, chosen: `maps_and_masks` of the pictures that are scored, and of the other pictures on
        which the thresholds are chosen.
    """
    report = {}
    for what, (maps, masks) in pairs.items():
        threshold = best_threshold(*chosen[what])
        found = mean_interval(ious(maps, masks, threshold))
        report[what] = {"iou": found, "threshold": float(threshold)}
    return report
