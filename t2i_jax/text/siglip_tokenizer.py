"""SigLIP's tokenizer, from the files published with its weights.

A SentencePiece unigram model, computed by the `tokenizers` library, of captions in lower case and
without punctuation (arXiv 2303.15343, as its authors' code prepares them).
"""

import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

END = 1  # and what fills a caption up
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def load(file: str | Path) -> Tokenizer:
    """Return the tokenizer in a tokenizer.json. Raises ValueError if it is not SigLIP's."""
    tokenizer = Tokenizer.from_file(str(file))
    if tokenizer.token_to_id("</s>") != END:
        raise ValueError(f"{file} is not SigLIP's: token {END} is not </s>")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> Int[np.ndarray, "N L"]:
    """Return the tokens of captions, int32: the words, and END up to `length`, at least once.

    Words that do not fit are cut off.
    """
    tokens = np.full((len(captions), length), END, np.int32)
    plain = [" ".join(x.lower().translate(_NO_PUNCTUATION).split()) for x in captions]
    encodings = tokenizer.encode_batch(plain, add_special_tokens=False)
    for row, encoding in zip(tokens, encodings, strict=True):
        ids = encoding.ids[: length - 1]
        row[: len(ids)] = ids
    return tokens
