"""How a picture was drawn, in its PNG file: a text chunk with all it takes to draw it again."""

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin

METADATA = "t2i_jax"  # the PNG text chunk, and the key in `Image.info`


class Picture(Image.Image):
    """A Pillow picture that writes the metadata in its `info` when it is saved as a PNG file."""

    def save(self, fp, format=None, **params):
        """Save as Pillow does."""
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(METADATA, self.info[METADATA])
        chunks.add_itxt("Description", json.loads(self.info[METADATA])["prompt"])
        super().save(fp, format, **{"pnginfo": chunks, **params})


def with_metadata(image: Image.Image, told: dict) -> Picture:
    """Return a picture that carries `told`: plain data with a "prompt"."""
    picture = image.copy()
    picture.info[METADATA] = json.dumps(told, sort_keys=True)
    picture.__class__ = Picture  # Pillow has no public way to make a picture of a subclass
    return picture  # pyright: ignore[reportReturnType]


def read_metadata(path, info: Mapping | None = None) -> dict:
    """Read what a picture says of how it was drawn.

    info: the `Image.info` of the picture, if it is open already.
    Raises FileNotFoundError if there is no such file, ValueError if it says nothing.
    """
    if info is None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"no picture {path}")
        with Image.open(path) as image:
            info = dict(image.info)
    if METADATA not in info:
        raise ValueError(
            f"{path} has no {METADATA} metadata: it was not drawn by this program, or was "
            "saved again without"
        )
    try:
        told = json.loads(info[METADATA])
    except (ValueError, TypeError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ValueError(
            f"{path}: its {METADATA} metadata is damaged: it is not the JSON object that this "
            "program writes"
        )
    return told
