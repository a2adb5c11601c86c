"""A byte-level BPE tokenizer trained on the captions of a run: any string in any language survives it.

Plain functions around the `tokenizers` library. Every caption ends with an end token; the empty caption is that token alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PAD, END = 0, 1


def train(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-pair merges learned from `captions` (at most `vocab_size` tokens; at least 258: 256 bytes, padding, end)."""
    if vocab_size < 258:
        raise ValueError(f"text.vocab_size is {vocab_size}; a byte-level vocabulary needs at least 258")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|pad|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return _plain(tokenizer)


def load(path) -> Tokenizer:
    """Read a `tokenizer.json`. Raises FileNotFoundError, naming the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: a run folder has a tokenizer.json")
    return _plain(Tokenizer.from_file(str(path)))


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> tuple[dict[str, np.ndarray], int]:
    """Captions as {"tokens" int32 [N, length], "mask" bool [N, length]}, and how many were cut to fit."""
    tokens = np.full((len(captions), length), PAD, np.int32)
    cut = 0
    for row, encoding in zip(tokens, tokenizer.encode_batch(list(captions)), strict=True):
        ids = encoding.ids[: length - 1]
        cut += len(encoding.ids) > len(ids)
        row[: len(ids)] = ids
        row[len(ids)] = END
    ends = np.argmax(tokens == END, axis=1)
    return {"tokens": tokens, "mask": np.arange(length) <= ends[:, None]}, cut


def decode(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """The strings of int [N, L] token rows, up to each end token."""
    rows = [row[: list(row).index(END)] if END in row else row for row in np.asarray(tokens)]
    return [tokenizer.decode([int(t) for t in row], skip_special_tokens=False) for row in rows]


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    # A caption that contains the text "<|end|>" must not become the end token.
    tokenizer.encode_special_tokens = True
    return tokenizer
