"""The list of all fields, and BASE."""

from pathlib import Path

from t2i_jax import config as configs
from t2i_jax.config.checks import what_is_right
from t2i_jax.data import augmentation, read_ahead
from t2i_jax.models import recompute
from t2i_jax.text import recurrent
from t2i_jax.training import optimizer, parallel

ROOT = Path(__file__).parent.parent.parent


def test_every_field_with_its_value_and_meaning():
    text = configs.listing(f"{ROOT}/configs/shapes_diffusion.py:unet", ["sample.rescale=0.5"])
    lines = text.splitlines()
    assert lines[0].endswith("shapes_diffusion.py:unet: Captioned shapes drawn by rectified flow.")
    (rescale,) = [line.split(maxsplit=2) for line in lines if line.startswith("sample.rescale ")]
    assert rescale[1] == "0.5" and "guided" in rescale[2]
    (steps,) = [line for line in lines if line.startswith("train.steps ")]
    assert "2000" in steps and "training steps (from 1 to 1,000,000,000)" in steps
    (name,) = [line for line in lines if line.startswith("optim.name ")]
    assert "'muon'" in name and "(adamw, lion, muon or sgd)" in name
    keys = [line.split()[0] for line in lines[1:] if line]
    order = [keys.index(key) for key in ("family", "data.name", "text.encoder", "model.network")]
    assert order == sorted(order) and keys.index("model.network") < keys.index("optim.name")


def test_the_variants_of_the_file():
    text = configs.listing(f"{ROOT}/configs/shapes_diffusion.py")
    assert "shapes_diffusion.py:small   A third of the parameters." in text
    assert "Several are applied in turn" in text
    text = configs.listing(f"{ROOT}/configs/shapes_llm.py:smoke")
    assert "shapes_llm.py:ARGUMENT  the folder of a published language model" in text


def test_describe_lists_what_no_field_describes():
    config = configs.load(f"{ROOT}/configs/shapes_vqgan.py")
    rows = {key: (value, meaning) for key, value, meaning in configs.describe(config)}
    assert rows["discriminator.width"] == (32, "")
    assert rows["optim.players"][0] == {} and rows["first_stage.config"][0] == {}
    assert rows["text.cell"][1].startswith("not used by 'none'")


def test_base_is_right_by_its_own_rules():
    for section, fields in configs.BASE.items():
        for name, field in fields.items():
            assert field.meaning, f"{section}.{name}"
            assert what_is_right(field.default, field) == "", f"{section}.{name}"


def test_base_is_a_fresh_config_each_time():
    configs.base().optim.players.update({"x": {}})
    assert configs.base().optim.players.to_dict() == {}


def test_names_in_base_are_those_of_the_modules():
    optim = configs.BASE["optim"]
    assert optim["name"].choices == optimizer.OPTIMIZERS
    assert optim["schedule"].choices == optimizer.SCHEDULES
    assert configs.BASE["train"]["reader"].choices == read_ahead.READERS
    assert configs.BASE["parallel"]["mode"].choices == parallel.MODES
    assert configs.BASE["parallel"]["remat"].choices == tuple(recompute.POLICIES)
    assert configs.BASE["text"]["cell"].choices == recurrent.CELLS
    assert configs.BASE["augment"] == augmentation.FIELDS
