"""Config files: Python files with `get_config()` and a table of variants.

A variant is a function (config) -> None that changes the config, and its docstring says what it
is. A file lists its variants in VARIANTS = (small, unet, smoke), and "FILE.py:small" is the file's
config after small(config). Names joined by "_" are applied in turn: "FILE.py:unet_smoke".
A file with ARGUMENT, a text that says what it is, also takes any other argument, as
`get_config(argument)`.

The project's own configs are found by name from everywhere: "shapes:smoke".
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from t2i_jax.config.checks import check
from t2i_jax.config.overrides import apply, tuples
from t2i_jax.core.registry import PACKAGE, did_you_mean
from t2i_jax.core.settings import flatten


class ConfigFile(NamedTuple):
    """A config file that was run.

    path: as it was given: a path, or the name of a config of the project.
    title: the first line of its docstring.
    variants: {name: function}.
    argument: what it takes instead of a variant, in words; "" for nothing.
    """

    path: str
    title: str
    get_config: Callable
    variants: dict[str, Callable]
    argument: str


def load(spec: str, overrides: Sequence[str] = ()) -> Any:
    """Return the config of "FILE.py" or "FILE.py:VARIANT" with overrides "a.b=value", locked.

    "NAME" and "NAME:VARIANT" are the project's own configs (`shipped`).
    Every field that the family, its network, the text encoder and the data source have is in it.
    Raises FileNotFoundError for a missing file, and ValueError for a file that is no config, an
    unknown variant or key (naming the nearest), and a value of the wrong type or out of range.
    """
    path, _, variant = spec.partition(":")
    return from_dict(build(read(path), variant), overrides)


def from_dict(given: Mapping, overrides: Sequence[str] = ()) -> Any:
    """Return `given`, a nested dict, as a checked and locked config with every field; see `load`.

    Raises ValueError as `load` does.
    """
    config, fields = apply(given, overrides)
    check(config, fields)
    return ConfigDict(config).lock()


def read(path: str) -> ConfigFile:
    """Run a config file, or the project's own config of the name `path`.

    Raises FileNotFoundError if it is missing, and ValueError if it is no config.
    """
    file = shipped().get(path, Path(path))
    if file.is_dir():
        raise ValueError(f"{path} is a folder, not a config file{_files_in(file)}")
    if not file.is_file():
        raise FileNotFoundError(f"no config file {path!r}{_files_in(file.parent)}{_meant(file)}")
    if file.suffix != ".py":
        raise ValueError(f"{path} is not a config: that is a Python file with get_config()")
    module = run_file(file)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ValueError(f"{path} is not a config: it defines no get_config()")
    variants = getattr(module, "VARIANTS", ())
    if not isinstance(variants, list | tuple) or not all(map(isfunction, variants)):
        raise ValueError(f"{path}: VARIANTS is {variants!r}: it must be a tuple of functions")
    title = (module.__doc__ or "").strip().partition("\n")[0]
    named = {variant.__name__: variant for variant in variants}
    return ConfigFile(path, title, get_config, named, getattr(module, "ARGUMENT", ""))


def shipped() -> dict[str, Path]:
    """Return the project's own configs, {name: file}.

    They are in `configs/` of a checkout. A wheel has a copy inside the package (setup.py).
    """
    folders = (PACKAGE / "configs", PACKAGE.parent / "configs")
    folder = next((each for each in folders if each.is_dir()), folders[0])
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def build(file: ConfigFile, variant: str = "") -> dict:
    """Return the config of a file, with a variant applied, as a nested dict; nothing is added.

    Raises ValueError for an unknown variant, and if `get_config` returns no config of a family.
    """
    names = _parts(file, variant)
    config = _of_argument(file, variant) if names is None else _call(file, file.get_config)
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"{file.path}: get_config() returns {type(config).__name__}; it must return the "
            "ConfigDict of t2i_jax.config.base()"
        )
    for name in names or ():
        _call(file, file.variants[name], config)
    given = tuples(config.to_dict())
    for key in ("family", "data.name"):
        if not flatten(given).get(key):
            raise ValueError(f"{file.path}: get_config() sets no config.{key}")
    return given


def _of_argument(file: ConfigFile, argument: str):
    try:
        return _call(file, file.get_config, argument)
    except FileNotFoundError as error:
        known = ", ".join(file.variants)
        raise FileNotFoundError(
            f"{error}: {file.path} takes {file.argument}, or a variant: {known}"
            f"{did_you_mean(argument, file.variants)}"
        ) from None


def _call(file: ConfigFile, function: Callable, *arguments):
    """Call a function of the file. Its errors become a ValueError of one line."""
    try:
        return function(*arguments)
    except (ValueError, FileNotFoundError):
        raise
    except (Exception, SystemExit) as error:
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise ValueError(f"{file.path}: {function.__name__}() raises {what}") from error


def _parts(file: ConfigFile, variant: str) -> list[str] | None:
    """Return the names of the variants that `variant` joins, or None if it is an argument."""
    names = [variant] if variant in file.variants else variant.split("_") if variant else []
    unknown = [name for name in names if name not in file.variants]
    if not unknown:
        return names
    if file.argument:
        return None
    if not file.variants:
        raise ValueError(f"{file.path} has no variants, and {variant!r} is asked for")
    raise ValueError(
        f"{file.path} has no variant {unknown[0]!r}: it has {', '.join(file.variants)}"
        f"{did_you_mean(unknown[0], file.variants)}"
    )


def run_file(file: Path) -> ModuleType:
    """Run a Python file as a module that no import finds."""
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        what = str(error).partition("\n")[0]
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {what}") from error
    return module


def _files_in(folder: Path) -> str:
    names = sorted(str(path) for path in folder.glob("*.py")) if folder.is_dir() else []
    return f"; there are {', '.join(names)}" if names else ""


def _meant(file: Path) -> str:
    """Return a hint for a missing file: the project's own config, or the nearest file name."""
    names = list(shipped())
    if file.stem in names:
        return f"; the project's own is --config={file.stem}"
    if file.suffix or len(file.parts) > 1:
        return did_you_mean(file, map(str, file.parent.glob("*.py")))
    return f"; the project's own are {', '.join(names)}{did_you_mean(file.stem, names)}"
