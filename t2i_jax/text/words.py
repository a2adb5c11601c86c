"""The words of a caption, and which tokens each is made of."""

import re
from typing import Any, NamedTuple

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.joint_tokenizer import JointTokenizer


class Word(NamedTuple):
    """A word of a caption, and the places of its tokens in the encoded caption."""

    text: str
    places: tuple[int, ...]


def words_of(tokenizer: Any, caption: str, length: int) -> list[Word]:
    """Return the words of a caption, which are what stands between spaces.

    Words whose tokens are all cut away are left out. A learned token of several vectors is written
    out, as `tokenizer.encode` does, so that each of its vectors is a word.
    length: of encoded captions, as `tokenizer.encode` takes it.
    Raises ValueError for a caption without a word, and for a joint tokenizer, which encodes a
    caption several times.
    """
    if isinstance(tokenizer, JointTokenizer):
        raise ValueError("this model reads a caption with several tokenizers: it has no word maps")
    room = length - tokenizer.num_special_tokens_to_add(False)
    tokenizers.refuse_broken_text([caption])
    caption = tokenizers.written_out(tokenizer, [caption])[0]
    encoding = tokenizer.encode(caption, add_special_tokens=False)
    encoding.truncate(room)
    spans = tokenizer.post_process(encoding).offsets
    found = [
        Word(match.group(), tuple(i for i, span in enumerate(spans) if _share(span, match.span())))
        for match in re.finditer(r"\S+", caption)
    ]
    if not (words := [word for word in found if word.places]):
        raise ValueError(f"nothing to explain: the caption {caption!r} has no word")
    return words


def _share(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return whether two spans of letters overlap; an empty one, of a special token, never does."""
    return max(one[0], other[0]) < min(one[1], other[1])
