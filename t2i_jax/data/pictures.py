"""Reading pictures: any file, Pillow picture or array becomes uint8 RGB, resized where asked."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

from t2i_jax.core.arguments import MAX_NUM, whole_number

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
)
# No others: for EPS, Pillow would run Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_JPEG_SIDE = 65_535  # pixels


def decode(
    picture: bytes | str | Path, height: int, width: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture as RGB pixels of this size: its largest centred part of the shape, resized.

    picture: encoded bytes, or a path.
    width: None for a square.
    Raises ValueError as `open_rgb`.
    """
    width = height if width is None else width
    return fit(open_rgb(picture, 2 * max(height, width)), height, width)


def open_rgb(picture: bytes | str | Path, side: int) -> Image.Image:
    """Return a picture in RGB, whole.

    picture: encoded bytes, or a path.
    side: a large JPEG is decoded at a fraction of its size, of at least so many pixels a side.

    EXIF orientation is applied, transparency is composed onto white, 16-bit grey is scaled to 8
    bits, and of an animation the first frame counts. Raises ValueError, saying why, if the picture
    cannot be read: truncated, not a picture, or of a kind with no agreed white.
    """
    try:
        with Image.open(
            io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS
        ) as image:
            image.draft(None, (side, side))
            ImageOps.exif_transpose(image, in_place=True)
            return on_white(image)
    except Exception as error:  # Pillow and its decoders raise many kinds for broken bytes
        reason = error
        if "cannot identify" in str(error):
            reason = "its format is none of " + ", ".join(FORMATS)
        raise ValueError(f"not a readable picture: {reason}") from error


def fit(image: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Return the largest centred part of this shape, resized with a Lanczos filter."""
    whole_width, whole_height = image.size
    if whole_width * height > whole_height * width:  # too wide
        kept_width, kept_height = whole_height * width / height, whole_height
    else:
        kept_width, kept_height = whole_width, whole_width * height / width
    left, top = (whole_width - kept_width) / 2, (whole_height - kept_height) / 2
    box = (left, top, left + kept_width, top + kept_height)
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=box))


def on_white(image: Image.Image) -> Image.Image:
    """Return a Pillow picture of any mode as RGB, with what is transparent composed onto white.

    Raises ValueError for floating-point pixels.
    """
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


def rgb(picture: np.ndarray | Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Convert one picture of any kind to RGB, by the rules of this file.

    16 bits are scaled to 8, and transparent pixels are composed onto white.

    picture: uint8 or uint16 [H, W] or [H, W, C], with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or
        4 (RGBA); or a Pillow picture. Raises ValueError for anything else.
    """
    if isinstance(picture, Image.Image):
        return np.asarray(on_white(ImageOps.exif_transpose(picture)))
    picture = np.asarray(picture)
    kind = f"{picture.dtype} {list(picture.shape)}"
    if picture.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a picture needs to be uint8 (or uint16) in 0..255 (or 0..65535), got {kind}"
        )
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or not 1 <= picture.shape[2] <= 4 or 0 in picture.shape:
        raise ValueError(
            "a picture needs to be [H, W] or [H, W, C] with C from 1 (grey) to 4 (RGBA), "
            f"got {kind}"
        )
    if picture.dtype == np.uint16:
        picture = ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.shape[2] == 3:
        return picture
    image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    return np.asarray(on_white(image))


def read_picture(picture, height: int, width: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Read one picture, as `decode` does.

    picture: a path, a Pillow picture, or an array (see `rgb`).
    Raises FileNotFoundError, or ValueError, naming the file, if it cannot be read.
    """
    if not isinstance(picture, str | Path):
        file = io.BytesIO()
        # So that there is one way from any picture to pixels.
        Image.fromarray(rgb(picture)).save(file, "PNG")
        return decode(file.getvalue(), height, width)
    if not Path(picture).is_file():
        raise FileNotFoundError(f"no picture {picture}")
    try:
        return decode(picture, height, width)
    except ValueError as error:
        raise ValueError(f"{picture}: {error}") from error


def read_pictures(
    pictures, purpose: str, height: int, width: int | None = None
) -> UInt8[np.ndarray, "N H W 3"]:
    """Read one or several pictures, as `decode` does.

    pictures: a picture as `read_picture` takes it, several of them, or an array of several.
    purpose: what they are for, for the error.
    Raises as `read_picture`, and ValueError if there are none.
    """
    return np.stack([read_picture(x, height, width) for x in _several(pictures, purpose)])


def read_whole_pictures(pictures, purpose: str) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Read one or several pictures, each whole and of its own size.

    Arguments and errors are those of `read_pictures`.
    """
    return [read_whole(picture) for picture in _several(pictures, purpose)]


def read_whole(picture) -> UInt8[np.ndarray, "H W 3"]:
    """Read one picture, whole. Arguments and errors are those of `read_picture`."""
    if not isinstance(picture, str | Path):
        return rgb(picture)
    if not Path(picture).is_file():
        raise FileNotFoundError(f"no picture {picture}")
    try:
        return np.asarray(open_rgb(picture, MAX_JPEG_SIDE))
    except ValueError as error:
        raise ValueError(f"{picture}: {error}") from error


def _several(pictures, purpose: str, what: str = "picture") -> Sequence:
    """Return the pictures as a sequence. Raises ValueError, with `what` they are, for none."""
    is_one = getattr(pictures, "ndim", 0) in (2, 3) or not isinstance(pictures, Iterable)
    if is_one or isinstance(pictures, str | Path | Image.Image):
        return [pictures]
    if not (several := list(pictures)):
        raise ValueError(f"nothing to {purpose}: give at least one {what}")
    return several


def mask_of_each(masks: Bool[np.ndarray, "M H W"], count: int) -> Bool[np.ndarray, "N H W"]:
    """Return one mask for each of `count` pictures; a single mask is for all of them.

    Raises ValueError for another number of masks.
    """
    if len(masks) not in (1, count):
        raise ValueError(f"{len(masks)} masks for {count} pictures: give one, or one for each")
    return np.repeat(masks, count // len(masks), axis=0)


def read_masks(masks, height: int, width: int) -> Bool[np.ndarray, "N H W"]:
    """Read masks, one or several; True where a picture is white.

    masks: bool [H, W] or [N, H, W], or pictures as `read_pictures` takes them.
    Raises ValueError for a bool array of another shape, and as `read_pictures`.
    """
    if isinstance(masks, np.ndarray) and masks.dtype == bool:
        masks = masks[None] if masks.ndim == 2 else masks
        if masks.shape[1:] != (height, width):
            raise ValueError(
                f"a mask of shape {masks.shape[1:]}: this model needs ({height}, {width})"
            )
        return masks
    several = _several(masks, "inpaint", "mask")
    return np.stack([read_picture(mask, height, width).mean(-1) > 127 for mask in several])


def widen(
    pictures: UInt8[np.ndarray, "N h w 3"], top: int, bottom: int, left: int, right: int
) -> tuple[UInt8[np.ndarray, "N H W 3"], Bool[np.ndarray, "1 H W"]]:
    """Return pictures with margins of these many pixels, and where the margins are.

    The margins repeat the pixels of the edge.
    """
    margins = ((top, bottom), (left, right))
    mask = np.pad(np.zeros(pictures.shape[1:3], bool), margins, constant_values=True)
    return np.pad(pictures, ((0, 0), *margins, (0, 0)), mode="edge"), mask[None]


def size_within(
    height: int, width: int, *, top: int, bottom: int, left: int, right: int
) -> tuple[int, int]:
    """Return the height and width that margins of these many pixels leave.

    Raises ValueError for a margin that is no whole number from 0, and if they leave nothing.
    """
    for name, margin in {"top": top, "bottom": bottom, "left": left, "right": right}.items():
        whole_number(name, margin, 0, MAX_NUM)
    inner = (height - top - bottom, width - left - right)
    if min(inner) < 1:
        raise ValueError(
            f"margins of {top} + {bottom} and {left} + {right} pixels leave nothing of "
            f"{height} x {width}: give smaller ones"
        )
    return inner
