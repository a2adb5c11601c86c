"""One way from a picture file to pixels: whatever its mode, size and orientation, out comes uint8 RGB [R, R, 3]."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"))
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no others: Pillow would run Ghostscript for EPS


def decode(picture: bytes | str | Path, resolution: int) -> np.ndarray:
    """The picture (encoded bytes, or a path) as uint8 RGB [resolution, resolution, 3].

    EXIF orientation is applied, transparency is composed onto white, 16-bit grey is scaled to 8 bits, of an animation
    the first frame is taken. The largest centred square is kept and resized with an antialiasing filter (Lanczos).
    Raises ValueError, saying why, if it cannot be read: truncated, not a picture, or of a kind with no agreed white.
    """
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS) as image:
            image.draft(None, (2 * resolution, 2 * resolution))  # a large JPEG is decoded at a fraction of its size
            ImageOps.exif_transpose(image, in_place=True)
            image = on_white(image)
    except Exception as error:  # for broken bytes Pillow and its decoders raise nearly every kind there is
        reason = "its format is none of " + ", ".join(FORMATS) if "cannot identify" in str(error) else error
        raise ValueError(f"not a readable picture: {reason}") from error
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    square = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.asarray(square)


def on_white(image: Image.Image) -> Image.Image:
    """A Pillow picture of any mode as RGB of the same size, with what is transparent composed onto white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion clips at 255
        grey = np.asarray(image).astype(np.int64)
        clear = grey == image.info.get("transparency", -1)
        grey = np.where(clear, 255, np.clip((grey + 128) // 257, 0, 255))
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
