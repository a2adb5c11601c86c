"""T5's tokenizer (arXiv 1910.10683, section 2.2.1), from the files published with T5's weights.

A SentencePiece unigram model, computed by the `tokenizers` library.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

PAD, END = 0, 1
_NAMES = {PAD: "<pad>", END: "</s>"}


def load(folder: str | Path) -> Tokenizer:
    """Return the tokenizer in a folder: its tokenizer.json.

    Raises FileNotFoundError if there is none, ValueError if it is not T5's.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        other = (Path(folder) / "spiece.model").is_file()
        raise FileNotFoundError(
            f"no tokenizer.json in {folder}"
            f"{': its spiece.model is not read' if other else ''}; add the tokenizer.json that "
            "Hugging Face publishes with T5 (google/t5-v1_1-xxl has the same tokens as all T5)"
        )
    tokenizer = Tokenizer.from_file(str(file))
    for token, name in _NAMES.items():
        if tokenizer.token_to_id(name) != token:
            raise ValueError(f"{file} is not T5's: token {token} is not {name}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> Int[np.ndarray, "N L"]:
    """Return the tokens of captions, int32: the words, END, and PAD up to `length`.

    Words that do not fit are cut off. As in the original, "</s>" in a caption is END too.
    """
    tokens = np.full((len(captions), length), PAD, np.int32)
    encodings = tokenizer.encode_batch(list(captions), add_special_tokens=False)
    for row, encoding in zip(tokens, encodings, strict=True):
        ids = [*encoding.ids[: length - 1], END]
        row[: len(ids)] = ids
    return tokens
