"""CLIP's tokenizer (arXiv 2103.00020, section 2.3): lower case, byte-level BPE whose words end in </w>, around the `tokenizers`
library, from the files that are published beside CLIP's weights.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
# English endings, runs of letters, single digits, runs of anything else that is not space.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer in a folder: its tokenizer.json, or its vocab.json and merges.txt.

    Raises FileNotFoundError if it has neither, ValueError if there is no START or END in the vocabulary.
    """
    whole, vocab, merges = (Path(folder) / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    if whole.is_file():
        tokenizer = Tokenizer.from_file(str(whole))
    elif vocab.is_file() and merges.is_file():
        tokenizer = Tokenizer(models.BPE.from_file(str(vocab), str(merges), end_of_word_suffix="</w>"))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        raise FileNotFoundError(f"no tokenizer in {folder}: it needs a tokenizer.json, or a vocab.json and a merges.txt")
    for token in (START, END):
        if tokenizer.token_to_id(token) is None:
            raise ValueError(f"the tokenizer in {folder} is not CLIP's: its vocabulary has no {token}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # a caption that contains the text of END must not end there
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> np.ndarray:
    """Captions as int32 [N, length]: START, the words, END, and END again up to `length`. What does not fit is cut off."""
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokens = np.full((len(captions), length), end, np.int32)
    tokens[:, 0] = start
    for row, encoding in zip(tokens, tokenizer.encode_batch(list(captions), add_special_tokens=False), strict=True):
        ids = encoding.ids[: length - 2]
        row[1 : 1 + len(ids)] = ids
    return tokens
