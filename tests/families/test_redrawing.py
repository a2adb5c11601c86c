"""Edit and inpaint: closed forms with a denoiser that knows the answer, for every sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Variables
from t2i_jax.core.first_stage import Latents
from t2i_jax.core.text import TextCondition
from t2i_jax.diffusion.samplers import SAMPLERS, make_sampler, time_grid
from t2i_jax.diffusion.schedules import make_schedule
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.denoising import Plan
from t2i_jax.families.redrawing import in_cells, make_redrawing

TRUE = 0.5  # the denoiser's x0
VARIABLES = Variables({"model": {}}, {}, {"first_stage": {}})
MASK = np.zeros((3, 8, 8), bool)
MASK[:, 2:5, 3:] = True
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)


def ability(name, sampler, schedule="cosine", see=None):
    """edit or inpaint of a denoiser that says TRUE everywhere; latents are 1/100 of the picture.

    see: (denoiser, inputs) -> the denoiser of a network that sees the mask.
    """
    latents = Latents(
        (8, 8, 3),
        lambda frozen, image: jnp.asarray(image, jnp.float32) / 100.0,
        lambda frozen, z: z * 100.0,
        lambda source, read_run: {},
    )
    denoiser = Denoiser(
        init=dict,
        encode_text=lambda params, frozen, text: TextCondition(*3 * (text["mask"],)),
        predict=lambda params, x, t, condition: jnp.full(x.shape, TRUE),
        schedule=make_schedule(schedule),
        kind="x0",
        draw_times=lambda keys: keys,
        latents=latents,
    )
    if see:
        told = denoiser
        denoiser = told._replace(see=lambda stage, inputs: see(told, inputs))
    text = {"mask": jnp.ones((2 * len(IMAGE), 1), bool)}
    names = Conditioning._fields
    conditioning = Conditioning(**dict.fromkeys(names, lambda *_: text))

    def make_plan(*, height, width, steps):
        assert (height, width) == (8, 8)
        times = time_grid(steps)
        return Plan(denoiser, make_sampler(sampler), times, 1.0, {"guidance": 2.0})

    return make_redrawing(make_plan, conditioning)[name]


def run(name, sampler="ddim", see=None, **settings):
    keys = jax.random.split(jax.random.key(0), len(IMAGE))
    inputs = {"image": IMAGE, "mask": MASK, "text": None}
    function = functools.partial(ability(name, sampler, see=see), **settings)
    return np.asarray(jax.jit(function)(VARIABLES, inputs, keys))


def test_strength_0_gives_the_picture_through_the_first_stage():
    np.testing.assert_allclose(run("edit", strength=0.0, steps=4), IMAGE, rtol=1e-6)
    np.testing.assert_allclose(run("edit", strength=0.24, steps=4), IMAGE, rtol=1e-6)  # no step


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_other_pixels_stay(sampler, strength):
    drawn = run("inpaint", sampler, strength=strength, steps=4)
    np.testing.assert_array_equal(drawn[~MASK], IMAGE[~MASK])
    exact = sampler not in ("euler", "heun")  # those of the others are exact for a constant x0
    np.testing.assert_allclose(drawn[MASK], 100 * TRUE, atol=0.02 if exact else 20)


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_an_edit_ends_at_what_the_denoiser_says(strength):
    np.testing.assert_allclose(run("edit", strength=strength, steps=4), 100 * TRUE, atol=0.01)


def test_a_cell_is_drawn_if_one_of_its_pixels_is():
    mask = np.zeros((1, 4, 6), bool)
    mask[0, 3, 2] = True
    np.testing.assert_array_equal(in_cells(mask, (2, 3))[0], [[False] * 3, [False, True, False]])


def test_a_network_for_inpainting_is_given_the_inputs():
    def see(denoiser, inputs):
        share = inputs["mask"].mean()
        return denoiser._replace(predict=lambda params, x, t, condition: jnp.full(x.shape, share))

    drawn = run("inpaint", see=see, strength=1.0, steps=2)
    np.testing.assert_array_equal(drawn[~MASK], IMAGE[~MASK])
    np.testing.assert_allclose(drawn[MASK], 100 * MASK.mean(), atol=0.02)
