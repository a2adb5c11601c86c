"""Loading configs and setting their fields from the command line."""

import json

import pytest

from t2i_jax import config as configs


def write(folder, body):
    path = folder / "c.py"
    path.write_text(
        "from t2i_jax.config import base\n\n\ndef get_config(arg=''):\n    config = base()\n" + body + "\n    return config\n"
    )
    return str(path)


def test_argument_and_overrides(tmp_path):
    file = write(
        tmp_path, "    config.model = {'width': 8 if arg == 'small' else 64, 'sizes': (1, 2), 'on': False, 'name': 'x'}"
    )
    assert configs.load(file).model.width == 64
    overrides = ["model.sizes=[3,4]", "model.on=True", "model.name=5", "optim.learning_rate=1", "ema_decay=inf"]
    config = configs.load(f"{file}:small", overrides)
    assert (config.model.width, config.model.sizes, config.model.on, config.model.name) == (8, (3, 4), True, "5")
    assert config.optim.learning_rate == 1.0 and isinstance(config.optim.learning_rate, float)
    assert config.ema_decay == float("inf")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepps=3", "did you mean 'train.steps'"),
        ("optim.lerning_rate=3", "did you mean 'optim.learning_rate'"),
        ("train.steps=many", "train.steps is int"),
        ("train.steps=2.5", "train.steps is int"),
        ("optim.learning_rate=True", "optim.learning_rate is float"),
        ("train.steps", "has no value"),
        ("train=3", "unknown config key 'train'"),
    ],
)
def test_bad_overrides_are_named(tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        configs.load(write(tmp_path, ""), [override])


def test_config_is_locked(tmp_path):
    config = configs.load(write(tmp_path, ""))
    with pytest.raises(AttributeError, match="learning_rate"):
        config.optim.learning_rat = 3


def test_missing_file_lists_those_there_are(tmp_path):
    write(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=r"c\.py"):
        configs.load(str(tmp_path / "d.py"))


def test_json_round_trip_keeps_tuples(tmp_path):
    config = configs.load(write(tmp_path, "    config.model = {'sizes': (1, (2, 3)), 'rate': 0.1}"))
    again = configs.from_json(configs.to_json(config))
    assert again == config and again.model.sizes == (1, (2, 3))


def test_settings_that_an_earlier_version_did_not_have_get_their_default():
    old = configs.base().to_dict()
    del old["train"]["score_every"], old["evaluate"]
    old["train"]["steps"] = 7
    again = configs.from_json(json.dumps(old))
    assert (again.train.steps, again.train.score_every) == (
        7,
        0,
    ) and again.evaluate.to_dict() == configs.base().evaluate.to_dict()
