"""What extractors of published folders share: finding their files, and embedding captions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

CAPTIONS_AT_ONCE = 64


def find_file(folder: str | Path, names: tuple[str, ...], message: str) -> Path:
    """Return the first file of these names that `folder` has.

    message: of the FileNotFoundError if there is none, with "{missing}" for what is missing.
    """
    for name in names:
        if (Path(folder).expanduser() / name).is_file():
            return Path(folder).expanduser() / name
    raise FileNotFoundError(message.format(missing=f"no {' or '.join(names)} in {str(folder)!r}"))


def embed_in_batches(
    embed: Callable, tokens: Int[np.ndarray, "N L"], width: int
) -> Float[np.ndarray, "N {width}"]:
    """Return embed(rows) of all rows of tokens.

    All batches have one shape, so that one program is compiled.
    """
    out, size = np.zeros((len(tokens), width), np.float32), min(CAPTIONS_AT_ONCE, len(tokens))
    for i in range(0, len(tokens), CAPTIONS_AT_ONCE):
        rows = tokens[i : i + CAPTIONS_AT_ONCE]
        filled = np.zeros((size, tokens.shape[1]), tokens.dtype)
        filled[: len(rows)] = rows
        out[i : i + CAPTIONS_AT_ONCE] = embed(filled)[: len(rows)]
    return out
