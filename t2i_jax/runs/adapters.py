"""Adapters that are added to a model when it draws: those of LoRA runs and of LoRA files."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from t2i_jax import config as configs
from t2i_jax.core.family import Variables
from t2i_jax.families.lora import merge
from t2i_jax.runs.frozen import tree_hash
from t2i_jax.runs.run_folder import config_of, is_run, read_ema, read_run


class Adapter(NamedTuple):
    """An adapter and its scale, as families/lora.py has them.

    parts: {"params": of the parameters, "text": of the frozen text encoders}, or one of them.
    """

    parts: dict[str, Any]
    scale: float


def read_adapter(path, config, checkpoint: str | int = "last") -> Adapter:
    """Return the adapter that was trained in the run folder `path`, or that is in the file `path`.

    config: of the model that it is for.
    Raises ValueError for a run without an adapter, and as `read_lora` does.
    """
    if not is_run(path):
        # On use: the networks of Stable Diffusion are not read by every model that draws.
        from t2i_jax.convert.lora_file import read_lora

        return Adapter(read_lora(path, config), 1.0)
    settings = config_of(read_run(path)).lora
    if not settings.rank:
        raise ValueError(f"{path} is a whole model: a run with lora.rank above 0 has an adapter")
    ema, _ = read_ema(path, checkpoint)
    return Adapter({"params": jax.tree.map(np.asarray, ema["params"])}, settings.scale)


def with_adapters(variables: Variables, config) -> Variables:
    """Return `variables` with the adapters that `config.lora.add` names, each with its weight.

    Raises ValueError for an adapter of another model, and FileNotFoundError, naming it, if there is
    none.
    """
    params, extra = variables.params, variables.extra
    frozen: Any = variables.frozen
    for path, weight in named_adapters(config.lora.add):
        if not (is_run(path) or Path(path).exists()):
            raise FileNotFoundError(f"lora.add: there is no file or run {path}")
        parts, scale = read_adapter(path, config)
        try:
            params = merge(params, parts.get("params", {}), weight * scale)
            if "text" in parts:
                text = merge(frozen.get("text", {}), parts["text"], weight * scale)
                frozen = {**frozen, "text": text}
        except ValueError as error:
            raise ValueError(f"lora.add: {path}: {error}") from error
    return Variables(params, extra, frozen)


def add_adapters(config: Any, variables: Variables, adapters: str) -> tuple[Any, Variables, str]:
    """Return (config, variables, the hash of the weights) with further adapters.

    adapters: in the form of `config.lora.add`. Raises as `with_adapters` does.
    """
    config, before = configs.copy(config), config.lora.add
    config.lora.add = adapters
    variables = with_adapters(variables, config)
    config.lora.add = ",".join(filter(None, (before, adapters)))
    return config.lock(), variables, tree_hash(jax.tree.map(np.asarray, variables.params))


def named_adapters(text: str) -> list[tuple[str, float]]:
    """Return (path, weight) of each adapter in a text such as "a.safetensors:0.8,runs/b".

    A weight that is left out is 1.
    """
    found = []
    for named in filter(None, (part.strip() for part in text.split(","))):
        path, colon, weight = named.rpartition(":")
        try:
            found.append((path, float(weight)) if colon else (named, 1.0))
        except ValueError:
            found.append((named, 1.0))
    return found
