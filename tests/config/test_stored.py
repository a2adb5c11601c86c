"""Configs in run.json: round trips, and those of earlier versions."""

import json
from pathlib import Path

import pytest

from t2i_jax import config as configs

ROOT = Path(__file__).parent.parent.parent
# What version 0.0 wrote for a flow model with a reranker, on a first stage; most sections are left
# out, as they were complete.
OLD = {
    "family": "flow",
    "seed": 3,
    "ranker": "runs/captioner",
    "data": {"name": "shapes", "resolution": 32, "scenes": 64},
    "text": {"encoder": "transformer", "length": 12, "width": 32},
    "first_stage": {
        "run": "runs/stage",
        "cache": True,
        "config": {
            "family": "vqgan",
            "ranker": "",
            "data": {"name": "shapes", "resolution": 32},
            "text": {"encoder": "none", "length": 2},
            "model": {"encoder": "patches", "multipliers": [1], "attention": [], "patch": 4},
            "quantizer": {"kind": "ema", "size": 16, "dim": 48, "normalize": False},
            "vqgan": {"l1": 1.0, "l2": 10.0},
        },
    },
    "diffusion": {"parameterization": "x0"},
    "model": {"network": "unet", "multipliers": [1, 2], "attention": [1], "remat": False},
    "optim": {"learning_rate": 0.012, "decay_at": [0.5]},
    "train": {"steps": 7},
}


def test_tuples_come_back():
    config = configs.load(f"{ROOT}/configs/shapes_diffusion.py:unet")
    again = configs.from_json(configs.to_json(config))
    assert again == config and again.model.multipliers == (1, 2, 2)
    assert again.is_locked


def test_fields_that_an_earlier_version_did_not_have_get_their_default():
    config = configs.from_json(json.dumps(OLD))
    assert (config.seed, config.train.steps, config.train.score_every) == (3, 7, 0)
    assert config.evaluate.to_dict() == configs.base().evaluate.to_dict()
    assert config.sample.rescale == 0.0 and config.diffusion.parameterization == "x0"
    assert config.model.multipliers == (1, 2) and config.model.heads == 4
    assert config.optim.decay_at == (0.5,)


def test_names_of_an_earlier_version_are_replaced():
    config = configs.from_json(json.dumps(OLD))
    assert config.family == "diffusion" and "ranker" not in config
    assert config.reranker.run == "runs/captioner"
    assert "remat" not in config.model and config.parallel.remat == "none"


def test_the_config_of_a_first_stage_is_completed_too():
    stage = configs.from_json(json.dumps(OLD)).first_stage.config
    assert stage.vqgan.l2 == 10.0 and stage.vqgan.adversarial == 0.0
    assert stage.model.resample and stage.model.multipliers == (1,)
    assert "ranker" not in stage and stage.reranker.run == ""
    assert stage.train.to_dict() == configs.base().train.to_dict()


def test_a_completed_config_stays_as_it_is():
    config = configs.from_json(json.dumps(OLD))
    assert configs.from_json(configs.to_json(config)) == config


def test_what_a_family_refuses_can_still_be_read():
    for change in (
        {"family": "no_such_family"},
        {"model": {"network": "no_such_network"}},
        {"model": {}},
        {"text": {"encoder": "no_such_encoder"}},
        {"train": {"steps": -1}},
    ):
        config = configs.from_json(json.dumps({**OLD, **change}))
        assert config.optim.learning_rate == 0.012 and config.evaluate.num == 1000


@pytest.mark.parametrize(
    "text",
    [
        *("[]", "3", "null", "", "{", '{"train": 3}', '{"first_stage": 3}', '{"family": 3}'),
        *('{"first_stage": {"config": 3}}', '{"text": {"encoder": ["a"]}}', '{"a.b": 3}'),
    ],
)
def test_what_is_no_stored_config_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        configs.from_json(text)


def test_sections_that_were_missing_altogether():
    old = configs.base().to_dict()
    del old["train"]["score_every"], old["evaluate"]
    old["train"]["steps"] = 7
    again = configs.from_json(json.dumps(old))
    assert (again.train.steps, again.train.score_every) == (7, 0)
    assert again.evaluate.to_dict() == configs.base().evaluate.to_dict()


def test_a_copy_is_unlocked_and_deep():
    config = configs.from_json(json.dumps(OLD))
    again = configs.copy(config)
    again.optim.learning_rate = 1.0
    assert config.optim.learning_rate == 0.012 and not again.is_locked
