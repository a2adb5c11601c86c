"""Several tokenizers as one: a caption becomes the tokens of the first, then those of the next.

Models such as Stable Diffusion 3 read a caption with CLIP and with T5, which have different
vocabularies.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

PARTS = "parts"  # the key of a stored joint tokenizer


class JointTokenizer(NamedTuple):
    """Tokenizers, and how many tokens a caption has in each but the last, which gets the rest."""

    parts: Sequence[Tokenizer]
    lengths: Sequence[int]

    def to_str(self, pretty: bool = False) -> str:
        """Return it as JSON: the content of a run's tokenizer.json."""
        parts = [json.loads(part.to_str()) for part in self.parts]
        content = {PARTS: parts, "lengths": list(self.lengths)}
        return json.dumps(content, indent=2 if pretty else None, ensure_ascii=False)

    def lengths_of(self, length: int) -> list[int]:
        """Return the number of tokens of each part in captions of `length` tokens."""
        return [*self.lengths, length - sum(self.lengths)]


def from_str(text: str) -> JointTokenizer:
    """Return what `to_str` wrote."""
    content = json.loads(text)
    parts = [Tokenizer.from_str(json.dumps(part)) for part in content[PARTS]]
    return JointTokenizer(parts, content["lengths"])
