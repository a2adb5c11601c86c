"""The command `prepare`: data sets and published weights are fetched before they are needed."""

import sys
from typing import Any

from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.core.files import data_dir
from t2i_jax.core.registry import lookup, names_with
from t2i_jax.data.load import load_source, say_what_to_install

WEIGHTS = ("features", "text", "convert")  # folders with files that fetch published weights


def prepare(args, overrides) -> None:
    """Fetch and prepare a data set, or published weights."""
    if args.weights:
        if args.resolution or overrides:
            raise ValueError("--resolution and --config.data are of --data, and not of --weights")
        _fetch_weights(args.weights)(args.archives)
        print(f"{args.weights}: ready in {data_dir()}")
        return
    chosen: Any = ConfigDict(
        {"data": {"name": args.data, "resolution": 32, "path": "", "dataset": ""}}
    )
    if args.resolution:
        overrides = [f"data.resolution={args.resolution}", *overrides]
    configs.override(chosen, overrides)
    if other := next((text for text in overrides if not text.startswith("data.")), None):
        raise ValueError(f"--config.{other}: only --config.data of a source can be set here")
    fetch = getattr(sys.modules[lookup("data", args.data).__module__], "prepare", None)
    if args.archives and not fetch:
        raise ValueError(f"--archives: {args.data} needs none")
    if fetch:
        with say_what_to_install(args.data):
            fetch(chosen.data, args.archives)
    source = load_source(chosen.data, "train")
    count, side = len(source.captions), chosen.data.resolution
    print(f"{args.data}: {count:,} training pictures of {side} px, in {data_dir()}")


def _fetch_weights(name: str):
    """Return `prepare` of the file NAME.py in WEIGHTS. Raises ValueError for an unknown name."""
    found = {each: folder for folder in WEIGHTS for each in names_with(folder, "prepare")}
    if name not in found:
        raise ValueError(f"there are no weights {name!r} to fetch: there are {', '.join(found)}")
    return lookup(found[name], name, "prepare")
