"""Word maps of a picture, and how they are shown: one panel for each word."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from t2i_jax.metrics.word_maps import stretched
from t2i_jax.text.words import Word

PANEL_PX, GAP_PX, LINE_PX, COLUMNS = 160, 6, 18, 6
HEAT_SHARE = 0.6  # of the colour of a panel that says how much a place belongs to the word


class WordMaps(NamedTuple):
    """Which part of a picture belongs to which word of its caption.

    maps: for each word a map of sum 1, or of zeros.
    """

    image: UInt8[np.ndarray, "H W 3"]
    words: list[str]
    maps: Float[np.ndarray, "words h w"]

    def overlay(self) -> Image.Image:
        """Return a picture of panels: the picture, and for each word the picture under its map.

        What belongs to the word most is yellow to white, what does least is dark.
        """
        high, wide = self.image.shape[:2]
        scale = PANEL_PX / wide
        size = (PANEL_PX, round(high * scale))
        picture = Image.fromarray(self.image).resize(size, Image.Resampling.NEAREST)
        grey = np.asarray(picture.convert("L"), np.float32)[:, :, None]
        panels = [picture]
        for each in self.maps:
            values = stretched(each).astype(np.float32)
            smooth = Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)
            heat = 255 * heat_colours(np.asarray(smooth))
            mixed = (1 - HEAT_SHARE) * grey + HEAT_SHARE * heat
            panels.append(Image.fromarray(np.rint(mixed).astype(np.uint8)))
        return _page(panels, ["", *self.words])


def of_words(
    image: UInt8[np.ndarray, "H W 3"], words: Sequence[Word], maps: Float[np.ndarray, "L h w"]
) -> WordMaps:
    """Return the maps of words, each the mean of those of its tokens.

    maps: of the tokens of the caption, from the ability `explain`.
    """
    means = np.stack([maps[list(word.places)].mean(0) for word in words])
    return WordMaps(image, [word.text for word in words], means)


def heat_colours(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape 3"]:
    """Return colours in [0, 1]: from black (0) over red and yellow to white (1)."""
    return np.clip(3.0 * values[..., None] - np.arange(3), 0.0, 1.0)


def _page(panels: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Return pictures of one size in rows, each with its title beneath."""
    wide, high = panels[0].width + GAP_PX, panels[0].height + LINE_PX + GAP_PX
    columns, rows = min(COLUMNS, len(panels)), -(-len(panels) // COLUMNS)
    page = Image.new("RGB", (columns * wide + GAP_PX, rows * high + GAP_PX), (255, 255, 255))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for i, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left, top = GAP_PX + i % columns * wide, GAP_PX + i // columns * high
        page.paste(panel, (left, top))
        pen.text((left, top + panel.height + 2), title, fill=(40, 40, 40), font=font)
    return page
