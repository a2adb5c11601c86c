"""The contract of an importer: a model in another project's format, as it is or to start a run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Imported(NamedTuple):
    """A published model that draws by itself: what a run folder holds, in memory.

    config: the whole config of a run, locked.
    params: {player: tree} of NumPy arrays.
    frozen: the frozen parts (core/family.py), of NumPy arrays.
    tokenizer: as `text.tokenizer.encode` takes it.
    """

    config: Any
    params: Any
    frozen: Any
    tokenizer: Any


class Importer(NamedTuple):
    """The functions of one published model; its path is bound already.

    Each file of convert/ that reads a format has `importer(path) -> Importer | None`, which returns
    None if `path` is not of that format.

    what: what the model is, for messages: "a published language model".
    check: (config) -> None. Raises ValueError for fields of a run's config that do not fit the
        model. The message says what each should be.
    tokenizer: () -> the tokenizer that the run has to use.
    start: (config, params) -> params with the model's weights in place of fresh ones.
    read: (dtype="float32") -> the whole model, or None if it draws nothing by itself. dtype: of its
        parameters, and of what is computed with them: "float32", "bfloat16" or "float16".
    """

    what: str
    check: Callable[[Any], None]
    tokenizer: Callable[[], Any]
    start: Callable[[Any, Any], Any]
    read: Callable[..., Imported] | None = None


def only_converted(what: str, path: Path, read: Callable[..., Imported]) -> Importer:
    """Return the importer of a whole model that a run starts from once it is converted to a run.

    what: see `Importer`.   read: (path, dtype="float32") -> the model.
    """

    def refuse(*_) -> Any:
        raise ValueError(
            f"{path} is {what}: convert it to a run (main.py convert --from={path} --workdir=RUN), "
            "and set init_from=RUN"
        )

    return Importer(what, refuse, refuse, refuse, functools.partial(read, path))
