"""What a pipeline draws: pictures and their files, and how many are drawn at once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from t2i_jax.core.files import atomic_path, make_folder
from t2i_jax.runs.word_maps import WordMaps


class Drawn(NamedTuple):
    """Pictures (PIL, RGB) and the prompt of each.

    Every picture's `info["t2i_jax"]` says how it was drawn.
    word_maps: of each picture, if they were asked for.
    """

    images: list[Image.Image]
    prompts: list[str]
    word_maps: Sequence[WordMaps] = ()

    def save(self, folder) -> list[Path]:
        """Write 000.png, 001.png, ... with their metadata, and return the paths.

        Word maps are written beside them, as 000-words.png, ...
        In a folder that has such files, the numbers go on after the highest.
        """
        make_folder(folder)
        taken = [int(p.stem) for p in Path(folder).glob("*.png") if p.stem.isdecimal()]
        first = max(taken, default=-1) + 1
        paths = [Path(folder) / f"{first + i:03d}.png" for i in range(len(self.images))]
        for path, image in zip(paths, self.images, strict=True):
            with atomic_path(path) as part:
                image.save(part)
        for path, maps in zip(paths, self.word_maps, strict=False):
            with atomic_path(path.with_name(f"{path.stem}-words.png")) as part:
                maps.overlay().save(part)
        return paths


def draw_in_batches(
    draw_rows: Callable, captions: Sequence[str], seed: int, batch: int
) -> tuple[UInt8[np.ndarray, "N H W 3"], list[dict[str, int]]]:
    """Return a picture of each caption, and where each stood: {"index", "row", "batch"}.

    draw_rows: (captions, index, seed, how many are no padding) -> uint8 [n, H, W, 3].
    batch: how many are drawn at once, at most.
    """
    images, places = [], []
    for first in range(0, len(captions), batch):
        part = captions[first : first + batch]
        size = padded_size(len(part), batch)
        padded = list(part) + [""] * (size - len(part))
        drawn = draw_rows(padded, first + np.arange(size), seed, len(part))
        images.append(drawn[: len(part)])
        places += [{"index": first + i, "row": i, "batch": size} for i in range(len(part))]
    return np.concatenate(images), places


def padded_size(count: int, batch: int) -> int:
    """Return the size that `count` examples are padded to: 1, 4, 16, 64, ..., at most `batch`.

    So another number of pictures seldom compiles another program.
    """
    size = 1
    while size < count:
        size *= 4
    return min(batch, size)
