"""FLOPs in closed form, and XLA's own figure, for the tests of this folder."""

import itertools

import jax
import jax.numpy as jnp


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def xla_flops(f, *args):
    """XLA's figure for the program as it is traced.

    That of the compiled program is the same on CPU, but for a fusion here and there.
    """
    return jax.jit(f).lower(*args).cost_analysis().get("flops", 0)


def linear(rows, *widths):
    """FLOPs of a chain of linear layers."""
    return sum(2 * rows * a * b for a, b in itertools.pairwise(widths))


def dit_forward(batch, cells, words, patch, channels, text_width, width, depth):
    """(FLOPs of a DiT, those of its products whose inputs are not differentiated)."""
    tokens = cells + words
    block = (
        linear(tokens, width, width) * 4
        + linear(tokens, width, 4 * width, width)
        + 2 * linear(tokens, width, tokens)
    )
    block += linear(1, width, 6 * width)
    start = linear(cells, patch**2 * channels, width) + linear(1, 256, width)
    ends = (
        linear(1, width, width)
        + linear(1, width, 2 * width)
        + linear(cells, width, patch**2 * channels)
    )
    text = linear(words, text_width, width) + linear(1, text_width, width)
    return batch * (start + ends + text + depth * block), batch * start
