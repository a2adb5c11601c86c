"""CLIP's tokenizer (arXiv 2103.00020, section 2.3), from the files published with CLIP's weights.

Lower case, and a byte-level BPE whose words end in </w>, built with the `tokenizers` library.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
# English endings, runs of letters, single digits, runs of anything else that is not space.
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def load(folder: str | Path) -> Tokenizer:
    """Return the tokenizer in a folder: its tokenizer.json, or its vocab.json and merges.txt.

    Raises FileNotFoundError if it has neither, ValueError if the vocabulary lacks START or END.
    """
    whole, vocab, merges = (
        Path(folder) / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    if whole.is_file():
        tokenizer = Tokenizer.from_file(str(whole))
    elif vocab.is_file() and merges.is_file():
        tokenizer = _from_vocabulary(vocab, merges)
    else:
        raise FileNotFoundError(
            f"no tokenizer in {folder}: it needs a tokenizer.json, or a vocab.json and a merges.txt"
        )
    for token in (START, END):
        if tokenizer.token_to_id(token) is None:
            raise ValueError(
                f"the tokenizer in {folder} is not CLIP's: its vocabulary has no {token}"
            )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A caption that contains the text of END must not end there.
    tokenizer.encode_special_tokens = True
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> Int[np.ndarray, "N L"]:
    """Return the tokens of captions, int32: START, the words, END, and END again up to `length`.

    Words that do not fit are cut off.
    """
    start, end = (cast(int, tokenizer.token_to_id(token)) for token in (START, END))
    tokens = np.full((len(captions), length), end, np.int32)
    tokens[:, 0] = start
    encodings = tokenizer.encode_batch(list(captions), add_special_tokens=False)
    for row, encoding in zip(tokens, encodings, strict=True):
        ids = encoding.ids[: length - 2]
        row[1 : 1 + len(ids)] = ids
    return tokens


def _from_vocabulary(vocab: Path, merges: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges), end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
