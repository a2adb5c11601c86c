"""The contract of an importer: a model in another project's format as the start of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Importer(NamedTuple):
    """The functions of one published model; its path is bound already.

    Each file of convert/ that reads a format has `importer(path) -> Importer | None`, which returns
    None if `path` is not of that format.

    what: what the model is, for messages: "a published language model".
    check: (config) -> None. Raises ValueError for fields of a run's config that do not fit the
        model. The message says what each should be.
    tokenizer: () -> the tokenizer that the run has to use.
    start: (config, params) -> params with the model's weights in place of fresh ones.
    """

    what: str
    check: Callable[[Any], None]
    tokenizer: Callable[[], Any]
    start: Callable[[Any, Any], Any]
