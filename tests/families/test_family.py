"""What every family must be: each file of families/ keeps the contract."""

import jax
import numpy as np
import pytest

from t2i_jax.families import family as families


def test_unknown_ability_lists_those_there_are(smoke):
    family = families.load(smoke("shapes"))
    with pytest.raises(ValueError, match="cannot 'caption'; it can decode, encode, reconstruct, sample"):
        families.ability(family, "caption")


NAMES = (
    *("shapes", "shapes_flow", "shapes_gan", "fashion_gan", "fashion_vae", "fashion_vae_gan"),
    *("shapes_vqgan", "shapes_masked", "shapes_captioner", "shapes_llm", "emoji_masked", "emoji_captioner"),
)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name, smoke, tiny_batch):
    config = smoke(name)
    family = families.load(config)
    assert set(family.abilities) <= set(families.ABILITIES)
    assert set(family.static) <= set().union(*family.settings.values())
    assert set(family.settings) <= {*family.abilities, "sample"}
    batch, _ = tiny_batch(config)
    params, _ = jax.eval_shape(family.init, jax.random.key(0), batch)
    assert set(family.losses) <= set(params)
    again, _ = jax.eval_shape(family.init, jax.random.key(0), jax.eval_shape(lambda: batch))
    assert again == params  # shapes are enough to start from
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))


def test_over():
    """A whole number is a float where the default is one, so that another setting over it keeps its fraction."""
    found = families.over(
        {"guidance": 1.5, "steps": 8, "on": 0.5, "name": "a"}, {"guidance": 2, "steps": 4, "on": True}, "sample"
    )
    assert found == {"guidance": 2.0, "steps": 4, "on": True, "name": "a"}
    assert [type(found[name]) for name in ("guidance", "steps", "on")] == [float, int, bool]
    with pytest.raises(ValueError, match=r"sample\.step is unknown: sample has guidance, steps"):
        families.over({"guidance": 1.5, "steps": 8}, {"step": 1}, "sample")


def test_split_keys_are_all_different():
    keys = jax.random.split(jax.random.key(0), 3)
    parts = families.split_keys(keys, 4)
    data = np.concatenate([jax.random.key_data(part) for part in parts])
    assert len(np.unique(data, axis=0)) == 12
