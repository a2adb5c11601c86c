"""Captions as tokens: plain functions around the `tokenizers` library.

A run's own tokenizer is a byte-level BPE trained on its captions: any string in any language survives it, every caption ends
with an end token, and the empty caption is that token alone. A pretrained encoder brings its own. What is put around a
caption (an end token; "[CLS]" and "[SEP]") is the tokenizer's post-processor, kept in `tokenizer.json` with the rest.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from t2i_jax.by_name import hint

PAD, END = 0, 1  # PAD is 0 for every tokenizer here; END is that of `train`


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
    return plain(tokenizer)


def train_whole(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """A token for each distinct caption as a whole, but for case and space around it; `encode` refuses any other.

    The empty caption is the end token alone. Raises ValueError if there are more than `vocab_size` - 2 others.
    """
    tokenizer = Tokenizer(models.WordLevel({}))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    distinct = sorted({tokenizer.normalizer.normalize_str(caption) for caption in captions} - {""})
    if len(distinct) > vocab_size - 2:
        raise ValueError(
            f"text.vocab_size is {vocab_size}, and there are {len(distinct):,} distinct captions: as classes they need "
            f"{len(distinct) + 2} (a class is a caption as a whole; for captions in words, take another text.encoder)"
        )
    tokenizer.model = models.WordLevel({caption: i for i, caption in enumerate(distinct, END + 1)})
    return plain(tokenizer)


def load(path) -> Tokenizer:
    """Read a `tokenizer.json`. Raises FileNotFoundError, naming the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: a run folder has a tokenizer.json")
    return plain(Tokenizer.from_file(str(path)))


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer made such that `encode` alone cuts and pads, and no text in a caption can act as a special token."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if tokenizer.post_processor is None:  # of `train`, and of a run folder from before the file held it
        tokenizer.post_processor = processors.TemplateProcessing("$A <|end|>", special_tokens=[("<|end|>", END)])
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], length: int) -> tuple[dict[str, np.ndarray], int]:
    """Captions as {"tokens" int32 [N, length], "mask" bool [N, length]}, and how many were cut to fit.

    Raises ValueError if `length` has no room for the special tokens around a caption, or a tokenizer of `train_whole` does
    not know one.
    """
    room = length - tokenizer.num_special_tokens_to_add(False)
    if room < 0:
        raise ValueError(f"text.length is {length}; the tokens around a caption alone are {length - room}")
    tokens, mask = np.full((len(captions), length), PAD, np.int32), np.zeros((len(captions), length), bool)
    cut = 0
    try:
        encodings = tokenizer.encode_batch(list(captions), add_special_tokens=False)
    except Exception as error:  # the library knows no other kind
        raise _unknown(tokenizer, captions) or error from None
    for i, encoding in enumerate(encodings):
        cut += len(encoding.ids) > room
        encoding.truncate(room)
        ids = tokenizer.post_process(encoding).ids
        tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
    return {"tokens": tokens, "mask": mask}, cut


def decode(tokenizer: Tokenizer, tokens: np.ndarray) -> list[str]:
    """The strings of int [N, L] rows of a tokenizer of `train`, up to each end token."""
    rows = [row[: list(row).index(END)] if END in row else row for row in np.asarray(tokens)]
    return [tokenizer.decode([int(t) for t in row], skip_special_tokens=False) for row in rows]


def _unknown(tokenizer: Tokenizer, captions: Sequence[str]) -> ValueError | None:
    """What to say if a vocabulary of whole captions lacks one of `captions`."""
    if not isinstance(tokenizer.model, models.WordLevel):
        return None
    known = sorted(tokenizer.get_vocab())
    allowed = {"", *known}
    caption = next(c for c in captions if tokenizer.normalizer.normalize_str(c) not in allowed)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return ValueError(
        f"{caption!r} is none of the {len(known)} captions that this model knows as its classes: {listed}{hint(caption, known)}"
    )
