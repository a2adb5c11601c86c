"""Pictures of any size in the style of another, by the ability `stylize` of a family."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from t2i_jax.core.family import Family, Variables
from t2i_jax.data.pictures import read_whole, read_whole_pictures
from t2i_jax.runs.batches import run_ability


def stylized(
    family: Family, variables: Variables, images, style, settings: Mapping[str, Any]
) -> list[Image.Image]:
    """Return the pictures in the style, each of its own size.

    images: one or several pictures.   style: one picture, of any size.
    settings: of the ability. A program is compiled for each pair of sizes.
    """
    ability, taken = family.abilities["stylize"], read_whole(style)[None]
    inputs = ({"image": x[None], "image_b": taken} for x in read_whole_pictures(images, "stylize"))
    drawn = (run_ability(ability, variables, each, None, dict(settings)) for each in inputs)
    return [Image.fromarray(np.asarray(each)[0]) for each in drawn]
