"""What a pipeline draws: pictures and their files, and how many are drawn at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


def padded_size(count: int, batch: int) -> int:
    """Return the size that `count` examples are padded to: 1, 4, 16, 64, ..., at most `batch`.

    So another number of pictures seldom compiles another program.
    """
    size = 1
    while size < count:
        size *= 4
    return min(batch, size)
