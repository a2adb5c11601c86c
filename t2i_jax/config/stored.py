"""Configs as JSON text, as run.json stores them, and those of earlier versions."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from t2i_jax.config.base import OTHER_RUNS
from t2i_jax.config.checks import check_values
from t2i_jax.config.defaults import complete
from t2i_jax.config.overrides import tuples


def to_json(config: ConfigDict) -> str:
    """Return the config as JSON text, with sorted keys."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True)


def from_json(text: str) -> Any:
    """Return the config of `to_json`, locked. JSON lists become tuples.

    Fields that an earlier version did not write get their default. Values are not checked: a run
    that was trained can be loaded. Raises ValueError for what is not the text of a config.
    """
    given = tuples(json.loads(text))
    if not isinstance(given, dict):
        raise ValueError(f"a config is stored as {{field: value}}, not as {type(given).__name__}")
    try:
        return ConfigDict(_completed(migrate(given))).lock()
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is not a stored config: {error}") from error


def refuse_wrong_values(config: ConfigDict) -> None:
    """Raise ValueError if a value of a stored config is of another type or out of range."""
    check_values(*complete(config.to_dict(), strict=False))


def copy(config: ConfigDict) -> Any:
    """Return an unlocked deep copy."""
    return ConfigDict(config.to_dict())


def migrate(given: Mapping) -> dict:
    """Return a stored config as this version writes it: with renamed families and fields."""
    given = dict(given)
    if given.get("family") == "flow":  # until 0.1
        given["family"] = "diffusion"
    if "ranker" in given:  # until 0.1
        given["reranker"] = {"run": given.pop("ranker"), "config": {}}
    model = given.get("model")
    if isinstance(model, Mapping) and "remat" in model:  # until 0.1
        given["model"] = {name: value for name, value in model.items() if name != "remat"}
    for section in OTHER_RUNS:
        if not isinstance(given.get(section, {}), Mapping):
            raise ValueError(
                f"config.{section} is {given[section]!r:.40}: it must be a section of fields"
            )
        if stored := given.get(section, {}).get("config"):
            if not isinstance(stored, Mapping):
                raise ValueError(f"config.{section}.config is {stored!r:.40}: it must be a config")
            given[section] = {**given[section], "config": migrate(stored)}
    return given


def _completed(given: Mapping) -> dict:
    """Return `given` with all defaults, and so the configs of other runs in it."""
    config, _ = complete(given, strict=False)
    for section in OTHER_RUNS:
        if stored := config.get(section, {}).get("config"):
            config[section]["config"] = _completed(stored)
    return config
