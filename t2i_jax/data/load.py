"""Find a data source by name. A source is a file of this folder (see core/source.py)."""

import contextlib
import sys
from collections.abc import Iterator

from t2i_jax.core.registry import lookup
from t2i_jax.core.source import Source, Templates

OF_TRAIN = ("tensorflow_datasets", "array_record", "importlib_resources")  # the extra "train"


def load_source(config, split: str) -> Source:
    """Return the source that `config.name` names, at `config.resolution`, for one split.

    config: `config.data`.
    split: "train", "validation", "test", or another that the source has.
    Raises ValueError, naming the nearest, for an unknown source, and RuntimeError as
    `say_what_to_install`.
    """
    with say_what_to_install(config.name):
        return lookup("data", config.name)(config, split)


def licence_of(config) -> str:
    """Return the licence of the data that `config.data` names: LICENCE of the source's file."""
    return _stated(config, "LICENCE", "not known to t2i_jax")


def templates_of(config) -> Templates:
    """Return the grammar of the captions that `config.data` names: TEMPLATES of the source's file.

    It is () if they have none.
    """
    return _stated(config, "TEMPLATES", ())


def _stated(config, name: str, default):
    """Return what the file of a source says of its data under a name, or `default`."""
    return getattr(sys.modules[lookup("data", config.name).__module__], name, default)


@contextlib.contextmanager
def say_what_to_install(name: str) -> Iterator[None]:
    """Let the block raise RuntimeError, with the command to run, where the source needs "train".

    name: of the source.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in OF_TRAIN:
            raise
        raise RuntimeError(
            f"the data of {name!r} need {missing}: pip install 't2i_jax[train]'"
        ) from error
