"""Captions as tokens: plain functions around the `tokenizers` library.

A run's own tokenizer is a byte-level BPE trained on its captions. It can represent any string in
any language. Every caption ends with an end token, and the empty caption is that token alone. A
pretrained encoder brings its own tokenizer. The special tokens around a caption (an end token;
"[CLS]" and "[SEP]") are added by the tokenizer's post-processor, which `tokenizer.json` stores with
the rest.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from t2i_jax.core.registry import did_you_mean
from t2i_jax.core.types import AnyArray
from t2i_jax.text.joint_tokenizer import PARTS, JointTokenizer, from_str

PAD, END = 0, 1  # PAD is 0 for every tokenizer here; END is that of `train` and `train_classes`
MIN_VOCAB_SIZE = 258  # 256 bytes, padding, end


def train(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE of at most `vocab_size` tokens on captions.

    Raises ValueError for a `vocab_size` of less than MIN_VOCAB_SIZE.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise ValueError(
            f"text.vocab_size is {vocab_size}; a byte-level vocabulary needs at least "
            f"{MIN_VOCAB_SIZE}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|pad|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return standardise(tokenizer)


def train_classes(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Make a tokenizer in which each distinct caption is one token, a class.

    Case and surrounding space do not count. The empty caption is the end token alone. `encode`
    refuses any other caption. Raises ValueError if there are more than `vocab_size` - 2 classes.
    """
    tokenizer = Tokenizer(models.WordLevel({}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    distinct = sorted({tokenizer.normalizer.normalize_str(caption) for caption in captions} - {""})
    if len(distinct) > vocab_size - 2:
        raise ValueError(
            f"text.vocab_size is {vocab_size}, and there are {len(distinct):,} distinct captions: "
            f"as classes they need {len(distinct) + 2} (a class is a caption as a whole; for "
            f"captions in words, take another text.encoder)"
        )
    tokenizer.model = models.WordLevel({caption: i for i, caption in enumerate(distinct, END + 1)})
    return standardise(tokenizer)


def load(path: str | Path) -> Tokenizer | JointTokenizer:
    """Read a `tokenizer.json`. Raises FileNotFoundError, naming the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: a run folder has a tokenizer.json")
    text = Path(path).read_text(encoding="utf-8")
    if PARTS not in json.loads(text):
        return standardise(Tokenizer.from_str(text))
    joint = from_str(text)
    return joint._replace(parts=[standardise(part) for part in joint.parts])


def standardise(tokenizer: Tokenizer) -> Tokenizer:
    """Change the settings of a tokenizer to those that `encode` needs, and return it.

    `encode` alone then cuts and pads, and no text in a caption can act as a special token.
    """
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # One that was just trained has none, nor have the first run folders.
    if tokenizer.post_processor is None:
        tokenizer.post_processor = processors.TemplateProcessing(
            "$A <|end|>", special_tokens=[("<|end|>", END)]
        )
    return tokenizer


def encode(
    tokenizer: Tokenizer | JointTokenizer, captions: Sequence[str], length: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return captions as tokens, and how many of them were cut to fit.

    The tokens are {"tokens": int32 [N, length], "mask": bool [N, length]}. Of a joint tokenizer, a
    caption counts as cut if no part has it as a whole.

    Raises ValueError if `length` has no room for the special tokens around a caption, or if a
    tokenizer of `train_classes` does not know a caption.
    """
    if isinstance(tokenizer, JointTokenizer):
        lengths = tokenizer.lengths_of(length)
        found = [
            encode(part, captions, n) for part, n in zip(tokenizer.parts, lengths, strict=True)
        ]
        texts, cut = zip(*found, strict=True)
        joined = {name: np.concatenate([t[name] for t in texts], axis=1) for name in texts[0]}
        return joined, min(cut)
    room = length - tokenizer.num_special_tokens_to_add(False)
    if room < 0:
        raise ValueError(
            f"text.length is {length}; the tokens around a caption alone are {length - room}"
        )
    refuse_broken_text(captions)
    tokens = np.full((len(captions), length), PAD, np.int32)
    mask = np.zeros((len(captions), length), bool)
    num_cut = 0
    captions = written_out(tokenizer, captions)
    try:
        encodings = tokenizer.encode_batch(captions, add_special_tokens=False)
    except Exception as error:  # the library raises no other kind
        raise _unknown_class(tokenizer, captions) or error from None
    for i, encoding in enumerate(encodings):
        num_cut += len(encoding.ids) > room
        encoding.truncate(room)
        ids = tokenizer.post_process(encoding).ids
        tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
    return {"tokens": tokens, "mask": mask}, num_cut


def written_out(tokenizer: Tokenizer, captions: Sequence[str]) -> list[str]:
    """Return captions with "TOKEN TOKEN_1 TOKEN_2" for each added TOKEN that has such successors.

    These are the names of the vectors of a learned embedding (runs/embeddings.py).
    """
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in sorted(name for name in added if f"{name}_1" in added):
        names = [token, *(f"{token}_{i}" for i in range(1, len(added)) if f"{token}_{i}" in added)]
        alone, whole = re.compile(rf"{re.escape(token)}(?!_\d)"), " ".join(names)
        captions = [alone.sub(lambda _, whole=whole: whole, caption) for caption in captions]
    return list(captions)


def refuse_broken_text(captions: Sequence[str]) -> None:
    """Raise ValueError for a caption that is no Unicode text, with which the library would fail."""
    for caption in captions:
        if not caption.isascii() and any("\ud800" <= c <= "\udfff" for c in caption):
            raise ValueError(f"{caption!r:.40} is no Unicode text: write it in UTF-8")


def decode(tokenizer: Tokenizer, tokens: Int[AnyArray, "N L"]) -> list[str]:
    """Decode token rows of a tokenizer of `train` to strings, stopping at the end token."""
    rows = [row[: list(row).index(END)] if END in row else row for row in np.asarray(tokens)]
    return [tokenizer.decode([int(t) for t in row], skip_special_tokens=False) for row in rows]


def _unknown_class(tokenizer: Tokenizer, captions: Sequence[str]) -> ValueError | None:
    """Return the error for a caption that is no class, or None if this tokenizer has no classes."""
    if not isinstance(tokenizer.model, models.WordLevel):
        return None
    known = sorted(tokenizer.get_vocab())
    allowed = {"", *known}
    caption = next(c for c in captions if tokenizer.normalizer.normalize_str(c) not in allowed)
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return ValueError(
        f"{caption!r} is none of the {len(known)} captions that this model knows as its classes: "
        f"{shown}{did_you_mean(caption, known)}"
    )
