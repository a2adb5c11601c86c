"""A contact sheet: many pictures with their captions in one image."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP_PX, LINE_PX, MAX_LINES = 8, 14, 3


def contact_sheet(
    images: UInt8[np.ndarray, "N H W 3"],
    captions: Sequence[str],
    columns: int = 0,
    tile: int = 128,
) -> Image.Image:
    """Return the pictures in rows, each enlarged to about `tile` pixels, its caption beneath.

    columns: 0 for about as many as rows.
    """
    columns = columns or int(np.ceil(len(images) ** 0.5))
    scale = max(1, round(tile / images.shape[2]))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    font = ImageFont.load_default(11)
    wrapped = [
        textwrap.wrap(caption, max(12, width // 6))[:MAX_LINES] or ["(empty)"]
        for caption in captions
    ]
    text = LINE_PX * max(len(lines) for lines in wrapped) + 4
    rows = -(-len(images) // columns)
    size = (columns * (width + GAP_PX) + GAP_PX, rows * (height + text + GAP_PX) + GAP_PX)
    page = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for i, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x = GAP_PX + i % columns * (width + GAP_PX)
        y = GAP_PX + i // columns * (height + text + GAP_PX)
        enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        page.paste(enlarged, (x, y))
        pen.multiline_text(
            (x, y + height + 1), "\n".join(lines), fill=(40, 40, 40), font=font, spacing=2
        )
    return page
