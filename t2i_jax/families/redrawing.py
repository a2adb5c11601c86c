"""The abilities `edit` and `inpaint` of every family with one denoiser.

Both add noise to a picture up to some time, and denoise it from there for a caption (arXiv
2108.01073). Inpainting keeps what lies outside a mask.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from t2i_jax.core.family import Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import split_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.diffusion.schedules import Schedule
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.denoising import Plan, predict_of, telling, unit_noise

STRENGTH = Field(
    0.6, "share of the steps that is done: 0 gives the picture back, 1 draws anew", 0.0, 1.0
)
FIELDS = {
    "edit": {"strength": STRENGTH},
    "inpaint": {"strength": STRENGTH._replace(default=1.0)},
}


def redrawing_settings(config, sample: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of both abilities: those of `sample` that they have, and `strength`."""
    shared = {name: value for name, value in sample.items() if name != "candidates"}
    return {
        ability: {
            **shared,
            "strength": config.get(ability, {}).get("strength", fields["strength"].default),
        }
        for ability, fields in FIELDS.items()
    }


def make_redrawing(make_plan: Callable[..., Plan], conditioning: Conditioning) -> dict:
    """Return {"edit": ability, "inpaint": ability}.

    make_plan: (height, width, **settings) -> Plan, with the sides of the picture in pixels.
    """

    def edit(variables: Variables, inputs, keys, *, strength, **settings):
        """Redraw inputs["image"], uint8 [B, H, W, 3], for the captions: uint8 [B, H, W, 3].

        strength: the share of the steps that is done.
        inputs: also those of `sample`.
        """
        plan = _plan_of(make_plan, inputs, settings)
        return _redraw(plan, conditioning, variables, inputs, keys, strength)

    def inpaint(variables: Variables, inputs, keys, *, strength, **settings):
        """Redraw where inputs["mask"], bool [B, H, W], is True; all other pixels stay."""
        plan, mask = _plan_of(make_plan, inputs, settings), jnp.asarray(inputs["mask"])
        drawn = _redraw(plan, conditioning, variables, inputs, keys, strength, mask)
        return jnp.where(mask[..., None], drawn, inputs["image"])

    return {"edit": edit, "inpaint": inpaint}


def _plan_of(make_plan, inputs, settings) -> Plan:
    _, height, width, _ = inputs["image"].shape
    return make_plan(**{**settings, "height": height, "width": width})


def _redraw(plan, conditioning, variables, inputs, keys, strength, mask=None):
    """Redraw the pictures of the inputs where the mask is True, or as a whole."""
    latents, schedule = plan.denoiser.latents, plan.denoiser.schedule
    stage = variables.frozen.get("first_stage", {})
    known = latents.encode(stage, inputs["image"])
    steps = len(plan.times) - 1
    first = steps - min(int(steps * strength), steps)
    if first == steps:
        return latents.decode(stage, known)
    times = plan.times[first:]
    start_keys, step_keys = split_keys(keys, 2)
    noise, c = unit_noise(plan, inputs, start_keys), schedule(times[0])
    x = c.alpha * known + c.sigma * noise
    predict = predict_of(plan, conditioning, variables, inputs)
    if mask is not None:
        cells = in_cells(mask, latents.shape[:2])[..., None]
        sees = plan.denoiser.see is not None  # and need not be held to what is known
        if first == 0:  # nothing of what is hidden
            x = jnp.where(cells | sees, plan.noise_scale * noise, x)
        if not sees:
            predict = keep_known(predict, known, cells, schedule)
    predict = telling(predict, plan._replace(times=times), variables, inputs)
    return latents.decode(stage, plan.sampler(predict, x, times, schedule, step_keys))


def keep_known(predict: Callable, known, cells, schedule: Schedule) -> Callable:
    """Return `predict` with the prediction x0 = known outside `cells`, bool [B, rows, columns, 1].

    The noise is what then follows from x, so that every sampler ends there at `known`.
    """

    def predict_rest(x, t):
        x0, noise = predict(x, t)
        c = schedule(t)
        rest = (x - c.alpha * known) / jnp.maximum(c.sigma, c.least)
        return jnp.where(cells, x0, known), jnp.where(cells, noise, rest)

    return predict_rest


def in_cells(mask: Bool[AnyArray, "B H W"], grid: tuple[int, int]) -> Bool[Array, "B rows columns"]:
    """Return whether the mask is True anywhere in each cell of a grid."""
    batch, height, width = mask.shape
    rows, columns = grid
    parts = jnp.asarray(mask).reshape(batch, rows, height // rows, columns, width // columns)
    return parts.any(axis=(2, 4))
