"""Config fields: every family describes them, and their defaults are those of its code."""

import re

import jax
import pytest

from t2i_jax import config as configs
from t2i_jax.config.checks import what_is_right
from t2i_jax.core.family import Context
from t2i_jax.core.registry import lookup, names_with
from t2i_jax.families.load import load_family
from tests.conftest import ROOT

# A config of each family but next_scale, which needs another run.
CONFIGS = (
    "shapes.py:smoke",
    "shapes_masked.py:smoke",
    "shapes_diffusion.py:smoke",
    "shapes_vqgan.py:smoke",
    "fashion_gan.py:mlp_smoke",
    "fashion_vae.py:smoke",
    "fashion_vae_gan.py:smoke",
    "shapes_captioner.py:smoke",
)
# Others, with other networks and quantizers.
MORE = (
    "shapes.py",
    "shapes_llm.py:smoke",
    "shapes_next_scale.py:smoke",
    "shapes_diffusion.py:unet_smoke",
    "shapes_vqgan.py:fsq_smoke",
    "shapes_gan.py:smoke",
    "fashion_gan.py:stylegan2_smoke",
)
# Without these a family cannot be made: they have a default only as config fields.
NEEDED = {"quantizer", "image_tokenizer"}


def without_defaults(config):
    """Return a copy of `config` without the fields of its family that have their defaults."""
    fields = lookup("families", config.family, "fields")(config)
    config = configs.copy(config)
    for section, named in fields.items():
        if section not in NEEDED:
            values = config
            for name in section.split(".") if section else ():
                values = values[name]
            for name, field in named.items():
                if values[name] == field.default:
                    del values[name]
    return config.lock()


def program(config, tiny_batch):
    """Return (settings, shapes of the parameters, the losses as text) of a config's family."""
    family = load_family(config)
    batch, frozen = tiny_batch(config, 2)
    frozen["first_stage"] = {"codebook": jax.ShapeDtypeStruct((64, 48), "float32")}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    params, extra = jax.eval_shape(family.init, jax.random.key(0), batch)

    def losses(params, extra, frozen, batch, keys):
        ctx = Context(extra, frozen, None, 3, batch, keys)
        return [loss(params, ctx) for loss in family.losses.values()]

    text = str(jax.make_jaxpr(losses)(params, extra, frozen, batch, keys))
    return family.settings, params, re.sub("0x[0-9a-f]+", "", text)


@pytest.mark.parametrize("spec", CONFIGS)
def test_defaults_of_fields_are_those_of_the_code(spec, tiny_batch):
    config = configs.load(f"{ROOT}/configs/{spec}")
    sparse = without_defaults(config)
    assert len(str(sparse)) < len(str(config))
    assert program(config, tiny_batch) == program(sparse, tiny_batch)


@pytest.mark.parametrize("spec", [*CONFIGS, *MORE])
def test_every_field_has_a_meaning_and_an_allowed_default(spec):
    config = configs.load(f"{ROOT}/configs/{spec}")
    for section, named in lookup("families", config.family, "fields")(config).items():
        for name, field in named.items():
            assert field.meaning, f"{section}.{name}"
            assert not what_is_right(field.default, field), f"{section}.{name}"


def test_every_family_describes_its_fields():
    assert names_with("families", "fields") == names_with("families", "make")
