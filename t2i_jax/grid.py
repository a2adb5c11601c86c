"""Many pictures with their captions on one sheet, for looking at."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def sheet(images: np.ndarray, captions: Sequence[str], columns: int = 0, tile: int = 128) -> Image.Image:
    """uint8 pictures [N, H, W, 3] in rows, each enlarged to about `tile` pixels, its caption beneath.

    columns: 0 for about as many as rows.
    """
    columns = columns or int(np.ceil(len(images) ** 0.5))
    scale = max(1, round(tile / images.shape[2]))
    height, width = images.shape[1] * scale, images.shape[2] * scale
    font = ImageFont.load_default(11)
    wrapped = [textwrap.wrap(caption, max(12, width // 6))[:3] or ["(empty)"] for caption in captions]
    text = 14 * max(len(lines) for lines in wrapped) + 4
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + text + 8) + 8), (255, 255, 255))
    pen = ImageDraw.Draw(page)
    for i, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        x, y = 8 + i % columns * (width + 8), 8 + i // columns * (height + text + 8)
        page.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
        pen.multiline_text((x, y + height + 1), "\n".join(lines), fill=(40, 40, 40), font=font, spacing=2)
    return page
