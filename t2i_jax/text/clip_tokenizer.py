"""CLIP's tokenizer (arXiv 2103.00020, section 2.3), from the files published with CLIP's weights.

Lower case, and a byte-level BPE whose words end in </w>, built with the `tokenizers` library.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
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
    return _finish(tokenizer)


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


def learn(captions: Sequence[str], vocab_size: int) -> Tokenizer:
    """Return a tokenizer of this kind that is learned from captions. START and END are last.

    vocab_size: of the tokenizer, at least 514: each byte in a word and at its end, START and END.
    Raises ValueError if the captions have too few words for it.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=[f"{letter}{END_OF_WORD}" for letter in letters],
        initial_alphabet=letters,
        end_of_word_suffix=END_OF_WORD,
        show_progress=False,
    )
    tokenizer = _with_words(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.train_from_iterator(captions, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocab = learned["vocab"]
    if len(vocab) != vocab_size - 2:
        raise ValueError(
            f"these captions give {len(vocab) + 2} tokens, and not {vocab_size}: ask for fewer"
        )
    vocab |= {START: vocab_size - 2, END: vocab_size - 1}
    merges = [tuple(merge) for merge in learned["merges"]]
    return _finish(_with_words(models.BPE(vocab, merges, end_of_word_suffix=END_OF_WORD)))


def _finish(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A caption that contains the text of END must not end there.
    tokenizer.encode_special_tokens = True
    return tokenizer


def _from_vocabulary(vocab: Path, merges: Path) -> Tokenizer:
    suffix = {"end_of_word_suffix": END_OF_WORD}
    return _with_words(models.BPE.from_file(str(vocab), str(merges), **suffix))


def _with_words(model: models.BPE) -> Tokenizer:
    """Return the tokenizer of a model that splits captions into words as CLIP does."""
    tokenizer = Tokenizer(model)
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
