"""Inpainting by codes: which are drawn, and that the autoregressive family finds the likeliest."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.families.inpainting import masked_cells
from t2i_jax.families.load import load_family
from tests.conftest import ROOT

COUNT = 8
KEYS = jax.random.split(jax.random.key(1), COUNT)


def test_masked_cells():
    mask = np.zeros((2, 4, 6), bool)
    mask[0, 1, 2] = mask[1, 2:, 5] = True
    cells = masked_cells(mask, (2, 3))
    np.testing.assert_array_equal(cells, [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]])


@pytest.fixture(scope="module")
def toy():
    """An autoregressive model of 2 x 2 cells of two codes, some pictures likelier than others."""
    overrides = ["data.resolution=8", "image_tokenizer.codes=2"]
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides)
    family, length = load_family(config), config.text.length
    codebook = np.stack([np.full(48, -0.5), np.full(48, 0.5)]).astype(np.float32)
    null = {"tokens": np.eye(1, length, dtype=np.int32)[0], "mask": np.arange(length) < 1}
    frozen = {
        "first_stage": {"codebook": jnp.asarray(codebook)},
        "null_text": {"transformer": null},
    }
    codes = np.random.default_rng(0).integers(0, 2, (COUNT, 4))
    image = decode(family, frozen, codes)
    words = np.zeros((COUNT, length), np.int32)
    words[:, 0] = 5 + np.arange(COUNT) % 3
    text = {"transformer": {"tokens": words, "mask": words > 0}}
    params, extra = jax.jit(family.init)(jax.random.key(3), {"image": image, "text": text})
    params["model"]["net"]["vectors"]["head"] = jax.random.normal(jax.random.key(4), (2, 32))
    return family, Variables(params, extra, frozen), codes, image, text


def decode(family, frozen, codes):
    variables = Variables({}, {}, frozen)
    return np.asarray(family.abilities["decode"](variables, {"codes": jnp.asarray(codes)}))


def run(toy, ability, inputs, **settings):
    family, variables = toy[:2]
    static = {"candidates": settings.pop("candidates", 1)}
    draw = jax.jit(functools.partial(family.abilities[ability], **static))
    chosen = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 1.0, **settings}
    return np.asarray(draw(variables, inputs, KEYS, **chosen))


def half_masked(image):
    """The upper left and the lower left cell; of the latter, only some pixels."""
    mask = np.zeros(image.shape[:3], bool)
    mask[:, :4, :4] = mask[:, 6:, 1:3] = True
    return mask


def test_of_all_fillings_the_likeliest_is_drawn(toy):
    """It fits the cell after it, too: the candidates are judged as whole pictures."""
    family, variables, codes, image, text = toy
    mask = half_masked(image)
    hidden = np.where(mask[..., None], 255 - image, image)  # says nothing of what is hidden
    inputs = {"image": hidden, "mask": mask, "text": text}
    drawn = run(toy, "inpaint", inputs, candidates=64)
    ctx = Context({}, variables.frozen, None, 0, {"text": text}, KEYS, train=False)
    loss = jax.jit(
        lambda image: family.losses["model"](
            variables.params, ctx._replace(batch={"image": image, "text": text})
        )[0]
    )
    fillings = []
    for first, third in itertools.product((0, 1), repeat=2):
        filled = codes.copy()
        filled[:, 0], filled[:, 2] = first, third
        fillings.append(decode(family, variables.frozen, filled))
    best = np.argmin([loss(filled) for filled in fillings], axis=0)
    assert len(set(best)) > 1
    expected = np.where(mask[..., None], np.stack(fillings)[best, np.arange(COUNT)], image)
    np.testing.assert_array_equal(drawn, expected)
    hot = run(toy, "inpaint", inputs, temperature=30.0)
    assert (hot != drawn).any(), "one candidate is not always the best"
    np.testing.assert_array_equal(drawn[~mask], image[~mask])


def test_a_full_mask_draws_and_an_empty_one_gives_the_picture_back(toy):
    image, text = toy[3] // 2, toy[4]  # its pixels are not those of codes
    full = np.ones(image.shape[:3], bool)
    drawn = run(toy, "inpaint", {"image": image, "mask": full, "text": text}, candidates=2)
    np.testing.assert_array_equal(drawn, run(toy, "sample", {"text": text}, candidates=2))
    same = run(toy, "inpaint", {"image": image, "mask": ~full, "text": text})
    np.testing.assert_array_equal(same, image)


def test_settings_of_inpainting_are_its_own():
    """Nothing is cut off and many candidates are drawn, unless the config says otherwise."""
    config = configs.load(f"{ROOT}/configs/shapes.py")
    settings = load_family(config).settings
    own = {"top_p": 1.0, "candidates": 32}
    assert settings["inpaint"] == {**settings["sample"], **own} != settings["sample"]
    config = configs.load(f"{ROOT}/configs/shapes.py", ["inpaint.candidates=3"])
    assert load_family(config).settings["inpaint"]["candidates"] == 3
