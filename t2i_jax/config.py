"""Configs: plain files with `get_config(arg)`, and `--config.a.b=value` on top of them."""

import ast
import difflib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict


def base() -> ConfigDict:
    """What every experiment has, with its defaults; a config file sets what is its own."""
    return ConfigDict(
        {
            "seed": 0,
            "init_from": "",  # start from the averaged weights of this run's folder, or from a published language model's
            "ranker": "",  # a run that captions, by which candidates are ranked too when pictures are drawn (ranker.py)
            "caption_dropout": 0.1,  # how often a caption is replaced by the empty one, for guidance
            "ema_decay": 0.999,
            "text": {
                "encoder": "transformer",  # a file of t2i_jax/text; each uses the fields that it has
                "length": 16,
                "vocab_size": 1024,
                "width": 128,
                "depth": 2,
                "heads": 4,
                "window": 0,
                "frozen": True,  # of a pretrained encoder ("minilm")
                "cell": "gru",  # of "recurrent": gru, or bilstm (both directions)
                "dropout": 0.0,  # of "recurrent" and "transformer"
            },
            "first_stage": {  # of a family that is trained on codes or latents (first_stage.py)
                "run": "",  # its run folder; "" for a codebook of patches, or, for latents, the pixels
                "config": {},  # that run's; filled in when training starts
                "cache": False,  # encode all pictures once, before training, and keep the result in the data folder
            },
            "augment": {  # of training pictures, on the device; only what the data says to keep its captions true
                "flip": 0.0,  # how often, left to right
                "rotation": 0.0,  # the most, in degrees
                "scale": 0.0,  # the most, as a part of the size
                "crop": 0.0,  # the farthest shift, as a fraction of the side
                "colour": 0.0,  # how strong, up to 1
                "noise": 0.0,  # standard deviation, where pictures are in [-1, 1]
            },
            "optim": {
                "name": "adamw",
                "learning_rate": 1e-3,
                "schedule": "cosine",
                "warmup": 100,
                "decay_rate": 0.1,  # under "exponential": of the rate by the end; under "step": at each of `decay_at`
                "decay_at": (0.5, 0.75),  # fractions of the run
                "weight_decay": 0.01,
                "l1": 0.0,
                "l2": 0.0,
                "clip": 1.0,
                "b1": 0.9,
                "b2": 0.99,
                "adam_scale": 1.0,  # under muon: the rate of tables, norms and biases, times that of the matrices
                "freeze": "",  # a regular expression: parameters with such a path ("model/text/embed") are not trained
                "players": {},  # fields of one player that are its own: {"discriminator": {"b1": 0.0}}
            },
            "train": {
                "steps": 1000,
                "batch_size": 64,
                "accumulate": 1,  # the batch is computed in this many parts, one after another
                "log_every": 50,
                "eval_every": 500,  # validation loss and a grid of samples
                "save_every": 500,
                "score_every": 0,  # draw and score this often (0: never)
                "score_examples": 128,  # of validation
                "validation_examples": 512,
                "grid": 16,
            },
            "evaluate": {
                "num": 1000,  # captions drawn for a score
                "batch": 64,  # at once
                "extractor": "efficientnet_lite0",  # of features, a file of t2i_jax/features
                "extractor_path": "",  # where its weights are; "" for those of `main.py prepare --weights=NAME`
            },
            "parallel": {"mode": "jit", "fsdp": 1},
        }
    )


def make_tiny(config: ConfigDict) -> None:
    """What every config's "smoke" setting has in common: a few steps on small batches; networks and data are its own."""
    config.text.width = 32
    config.train.update({"steps": 6, "batch_size": 8, "log_every": 2, "eval_every": 4, "save_every": 3, "grid": 4})
    config.train.update({"validation_examples": 16, "score_every": 0, "score_examples": 8})
    config.evaluate.update({"num": 16, "batch": 8})


def load(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of "FILE.py" or "FILE.py:arg", with overrides "a.b=value" applied, locked.

    Raises FileNotFoundError for a missing file, and ValueError for an unknown key (naming the nearest) or a wrong type.
    """
    file, _, arg = spec.partition(":")
    if not Path(file).is_file():
        raise FileNotFoundError(f"no config file {file!r}" + _choices(Path(file).parent))
    module_spec = importlib.util.spec_from_file_location(f"config_{Path(file).stem}", file)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    config = module.get_config(arg) if arg else module.get_config()
    override(config, overrides)
    return config.lock()


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Apply "a.b=value", ...; raises ValueError as `load` does."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--config.{key} has no value: write --config.{key}=VALUE")
        set_value(config, key, value)


def set_value(config: ConfigDict, key: str, text: str) -> None:
    """`config.a.b = value` from "a.b" and the value's text, read as the type that stands there."""
    known = flatten(config)
    if key not in known:
        near = difflib.get_close_matches(key, known, 1, cutoff=0.4)
        raise ValueError(f"unknown config key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    old = known[key]
    try:
        value = _parse(text, old)
    except (ValueError, SyntaxError):
        raise ValueError(f"config.{key} is {type(old).__name__} ({old!r}); {text!r} is not") from None
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    with config.unlocked():
        config[last] = value


def flatten(config) -> dict:
    """{"a.b": value} of nested mappings."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict | dict):
            flat |= {f"{key}.{name}": leaf for name, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return flat


def to_json(config: ConfigDict) -> str:
    """The config as JSON text, keys sorted."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`, locked. What an earlier version did not write yet gets the default of `base`.

    Tuples come back as tuples: JSON lists become tuples.
    """

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(leaf) for key, leaf in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    given, defaults = tuples(json.loads(text)), base().to_dict()
    # The other sections are whole in each config file.
    settings = ("text", "first_stage", "augment", "optim", "train", "evaluate", "parallel")
    plain = {name: value for name, value in defaults.items() if not isinstance(value, dict)}
    return ConfigDict({**plain, **given, **{name: {**defaults[name], **given.get(name, {})} for name in settings}}).lock()


def _parse(text: str, old):
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if isinstance(old, float):
        return float(text)  # "3" and "inf" too
    value = ast.literal_eval(text)
    if isinstance(old, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(old):
        raise ValueError
    return value


def _choices(folder: Path) -> str:
    names = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
    return f"; there are {', '.join(names)}" if names else ""
