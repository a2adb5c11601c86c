"""The ability `inpaint` of families that draw codes: the masked codes are drawn, the rest kept."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool

from t2i_jax.core.family import Variables
from t2i_jax.core.first_stage import Codes
from t2i_jax.core.types import AnyArray
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.redrawing import in_cells


def make_inpaint(
    stage: Codes, conditioning: Conditioning, draw: Callable, resolution: int
) -> Callable:
    """Return the ability `inpaint`.

    draw: (variables, text, codes int32 [B, N], masked bool [B, N], keys, settings) -> codes int32
        [B, N]. It draws the masked codes and keeps the others.
    resolution: the side of a picture in pixels.
    """

    def inpaint(variables: Variables, inputs, keys, **settings):
        """Draw the masked part of pictures anew, and keep all other pixels. Returns uint8.

        inputs: "image" uint8 [B, H, W, 3], "mask" bool [B, H, W], and "text", or no text for the
            null text. A mask that leaves only the middle is outpainting.
        A token is drawn if its cell has a pixel of the mask, given the other tokens and the text.
        Raises ValueError for pictures of another size than data.resolution, and for a mask of
        another shape than the pictures.
        """
        image, mask = inputs["image"], inputs["mask"]
        if image.shape[1:3] != (resolution, resolution):
            raise ValueError(
                f"pictures of {image.shape[1]} x {image.shape[2]} pixels: this model needs "
                f"{resolution} x {resolution}"
            )
        if mask.shape != image.shape[:3]:
            raise ValueError(
                f"a mask of shape {mask.shape} does not fit pictures of shape {image.shape}: let "
                "it be [B, H, W]"
            )
        first_stage = variables.frozen["first_stage"]
        text = conditioning.of_inputs(inputs, variables.frozen, len(image))
        codes, masked = stage.encode(first_stage, image), masked_cells(mask, stage.grid)
        codes = draw(variables, text, codes, masked, keys, settings)
        return jnp.where(mask[..., None], stage.decode(first_stage, codes), image)

    return inpaint


def masked_cells(mask: Bool[AnyArray, "B H W"], grid: tuple[int, int]) -> Bool[Array, "B N"]:
    """Return which cells of a grid (rows, columns) contain a True of the mask, in row order."""
    return in_cells(mask, grid).reshape(len(mask), -1)
