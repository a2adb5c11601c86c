"""A contact sheet: many pictures with their captions in one image."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP_PX, LINE_PX, MAX_LINES = 8, 14, 3
CUT = " ..."  # at the end of a caption that has more lines


def contact_sheet(
    images: UInt8[np.ndarray, "N H W 3"],
    captions: Sequence[str],
    columns: int = 0,
    tile: int = 128,
    max_lines: int | None = MAX_LINES,
) -> Image.Image:
    """Return the pictures in rows, each enlarged to about `tile` pixels, its caption beneath.

    columns: 0 for about as many as rows.
    max_lines: lines of a caption that are shown; None for all.
    """
    columns = columns or int(np.ceil(len(images) ** 0.5))
    scale = max(1, round(tile / images.shape[2]))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    font = ImageFont.load_default(11)
    wrapped = [
        textwrap.wrap(caption, max(12, width // 6), max_lines=max_lines, placeholder=CUT)
        or ["(empty)"]
        for caption in captions
    ]
    rows = [wrapped[first : first + columns] for first in range(0, len(wrapped), columns)]
    text = [LINE_PX * max(len(lines) for lines in row) + 4 for row in rows]
    tops = np.cumsum([GAP_PX] + [height + each + GAP_PX for each in text])
    size = (columns * (width + GAP_PX) + GAP_PX, int(tops[-1]))
    page = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for i, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x = GAP_PX + i % columns * (width + GAP_PX)
        y = int(tops[i // columns])
        enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        page.paste(enlarged, (x, y))
        pen.multiline_text(
            (x, y + height + 1), "\n".join(lines), fill=(40, 40, 40), font=font, spacing=2
        )
    return page
