"""The helpers of the contract; tests/families/test_contract.py holds every family to it."""

import jax
import pytest

from t2i_jax.core.family import Family, get_ability, parameter_shapes, updates_per_step
from t2i_jax.families.load import load_family


def test_unknown_ability_lists_those_there_are(smoke):
    family = load_family(smoke("shapes"))
    with pytest.raises(
        ValueError,
        match="cannot 'caption'; it can decode, encode, explain, inpaint, reconstruct, sample",
    ):
        get_ability(family, "caption")


def test_a_batch_is_divided_among_the_most_updates_of_a_player():
    family = Family(None, {}, {}, {})
    assert updates_per_step(family) == 1
    assert updates_per_step(family._replace(updates={"first": 2, "second": 5})) == 5


@pytest.mark.parametrize("name", ["shapes", "shapes_gan", "shapes_vqgan"])
def test_shapes_are_known_without_data(name, smoke, tiny_batch):
    config = smoke(name)
    family = load_family(config)
    batch, _ = tiny_batch(config)
    made, _ = jax.eval_shape(family.init, jax.random.key(0), batch)
    assert parameter_shapes(config, family) == made
