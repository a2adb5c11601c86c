"""From the output of a network to the probabilities of the codes of a first stage."""

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Int

from t2i_jax.core.types import AnyArray
from t2i_jax.models.code_parts import CodeParts, split_codes
from t2i_jax.models.code_vectors import CodeVectors
from t2i_jax.models.layers import matmul


class CodeHead(nn.Module):
    """The output layer of a network that has `width` numbers for each cell of a grid of codes.

    codes: number of codes.
    parts: of codes with two parts, how many values each has.
    """

    codes: int
    width: int
    parts: tuple[int, ...] = ()

    def setup(self):
        self.vectors = CodeVectors(self.codes, None, self.width, parts=self.parts)
        if self.parts:
            self.code_parts = CodeParts(self.parts, self.width)

    def __call__(
        self,
        x: Float[Array, "B N width"],
        codebook: Float[AnyArray, "codes D"],
        codes: Int[AnyArray, "B N"],
    ) -> tuple[Float[Array, "B N _"], ...]:
        """Return the logits of each part of the codes; of the second, given the true first."""
        _, head = self.vectors(codebook)
        if not self.parts:
            return (matmul(x, head),)
        return self.code_parts(x, head, split_codes(codes, self.parts)[0])

    def every(
        self, x: Float[Array, "B N width"], codebook: Float[AnyArray, "codes D"]
    ) -> tuple[Float[Array, "B N *_"], ...]:
        """Return the logits of all codes; of two parts, see `CodeParts.every`."""
        _, head = self.vectors(codebook)
        return self.code_parts.every(x, head) if self.parts else (matmul(x, head),)


def probabilities(logits: tuple[Float[Array, "B N *_"], ...]) -> Float[Array, "B N codes"]:
    """Return the probabilities of all codes, from the logits of `CodeHead.every`."""
    first, *second = (jax.nn.softmax(part) for part in logits)
    if not second:
        return first
    return (first[..., None] * second[0]).reshape(*first.shape[:2], -1)
