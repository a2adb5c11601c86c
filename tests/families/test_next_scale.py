"""Next-scale: codes are drawn grid by grid, each grid given the coarser ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.first_stage import Codes
from t2i_jax.families import next_scale
from tests.conftest import ROOT

SCALES, SIZE = (1, 2, 3), 7
TABLE = np.random.default_rng(0).normal(size=(SIZE, 4)).astype(np.float32)


def coarse(frozen, codes):
    """The vector of the first code; in the last grid, plus that of the second grid's first code."""
    first, second = (jnp.asarray(TABLE)[codes[:, i]][:, None] for i in (0, 1))
    return jnp.concatenate(
        [0 * first, jnp.repeat(first, 4, 1), jnp.repeat(first + second, 9, 1)], axis=1
    )


@pytest.fixture
def fresh(tiny_batch):
    """(family, variables, batch) on a first stage whose "pictures" are the codes themselves."""
    unused: Any = None
    stage = Codes(
        grid=(3, 3),
        size=SIZE,
        channels=4,
        encode=unused,
        decode=lambda frozen, codes: codes,
        vectors=lambda frozen: TABLE,
        fit=unused,
        scales=SCALES,
        coarse=coarse,
    )
    config = configs.load(f"{ROOT}/configs/shapes_next_scale.py:smoke", ("text.vocab_size=300",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_scale, "load_codes", lambda config, scales: stage)
        family = next_scale.make(config)
    batch, frozen = tiny_batch(config)
    frozen["first_stage"] = {}
    batch["codes"] = (
        np.random.default_rng(1).integers(0, SIZE, (len(batch["image"]), 14)).astype(np.int32)
    )
    params, extra = jax.jit(family.init)(jax.random.key(2), batch)
    head = params["model"]["net"]["vectors"]["head"]
    params["model"]["net"]["vectors"]["head"] = jax.random.normal(jax.random.key(3), head.shape)
    return family, Variables(params, extra, frozen), batch


@pytest.fixture
def draw(fresh):
    family, variables, batch = fresh

    def sample(keys, temperature, guidance):
        settings = {"temperature": temperature, "top_k": 0, "top_p": 1.0, "guidance": guidance}
        return family.abilities["sample"](variables, {"text": batch["text"]}, keys, **settings)

    return jax.jit(sample)


@pytest.fixture
def loss_of(fresh):
    family, variables, batch = fresh
    ctx = Context(variables.extra, variables.frozen, None, 0, batch, None, train=False)
    return jax.jit(
        lambda codes: family.losses["model"](
            variables.params, ctx._replace(batch={**batch, "codes": codes})
        )
    )


def test_at_temperature_0_every_token_is_the_likeliest(fresh, draw, loss_of):
    keys = jax.random.split(jax.random.key(0), len(fresh[2]["image"]))
    codes = draw(keys, 0.0, 1.0)
    _, (_, metrics) = loss_of(codes)
    np.testing.assert_array_equal(metrics["token_accuracy"], 1.0)
    # Change one of fourteen codes, on which no other code depends.
    _, (_, metrics) = loss_of(codes.at[:, 3].set((codes[:, 3] + 1) % SIZE))
    np.testing.assert_allclose(metrics["token_accuracy"], 13 / 14, rtol=1e-6)
    assert (draw(keys, 0.0, 5.0) != codes).any()  # guidance makes a difference


def test_a_picture_does_not_depend_on_its_batch(fresh, draw):
    count = len(fresh[2]["image"])
    keys = jax.random.split(jax.random.key(0), count)
    before = draw(keys, 1.0, 1.0)
    after = draw(keys.at[1].set(jax.random.key(9)), 1.0, 1.0)
    np.testing.assert_array_equal(np.delete(after, 1, 0), np.delete(before, 1, 0))
