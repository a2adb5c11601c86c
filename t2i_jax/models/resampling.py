"""Convolutions of StyleGAN2 (arXiv 1912.04958): those that resample, and modulated ones.

A convolution that resamples is one plain 3 x 3 convolution on the coarser grid: the paper's kernel
and its FIR filter are first convolved with one another, and the pixels of a 2 x 2 square become
channels. The results are the same. This needs four times as many multiplications as a strided
convolution, but for R1 and path lengths XLA on CPU takes twice as long with strided ones.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models.layers import depth_to_space, space_to_depth

FIR = np.array([1, 3, 3, 1], np.float32) / 8
# The convolution of three taps with FIR, as a matrix [6, 3].
FIR_MATRIX = np.stack([np.convolve(tap, FIR) for tap in np.eye(3, dtype=np.float32)], axis=1)
EPSILON = 1e-8  # added before a root


def upsample(x: Float[AnyArray, "B H W C"]) -> Float[Array, "B 2*H 2*W C"]:
    """Insert zeros between the pixels, then apply FIR in both directions with gain 4."""
    for axis in (1, 2):
        before, after = _neighbours(x, x, axis)
        x = jnp.stack([before + 3 * x, 3 * x + after], axis + 1) / 4
        x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return x


def downsample(x: Float[AnyArray, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """Apply FIR in both directions, then keep every second pixel."""
    for axis in (1, 2):
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1))
        before, after = _neighbours(odd, even, axis)
        x = (before + 3 * even + 3 * odd + after) / 8
    return x


def _neighbours(x, y, axis: int):
    """Return for each place (x of the place before, y of the place after) along the axis.

    Outside the picture there are zeros.
    """
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    size = x.shape[axis]
    return lax.slice_in_dim(jnp.pad(x, pad), 0, size, axis=axis), lax.slice_in_dim(
        jnp.pad(y, pad), 2, size + 2, axis=axis
    )


def conv(
    x: Float[AnyArray, "B H W I"], kernel: Float[AnyArray, "K K I O"]
) -> Float[Array, "B H W O"]:
    """Return the convolution with a kernel of odd side, with zeros outside the picture."""
    return lax.conv_general_dilated(
        jnp.asarray(x),
        jnp.asarray(kernel),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def conv_up(
    x: Float[AnyArray, "B H W I"], kernel: Float[AnyArray, "3 3 I O"]
) -> Float[Array, "B 2*H 2*W O"]:
    """Insert zeros between the pixels, apply the kernel, then FIR with gain 4."""
    *_, i, o = kernel.shape
    # Pixel 2 n + a of the result depends on x[n - 1 .. n + 1], by taps 1 - a, 3 - a and 5 - a.
    taps = 4 * _convolve_with_fir(kernel).reshape(3, 2, 3, 2, i, o)[:, ::-1, :, ::-1]
    return depth_to_space(conv(x, taps.transpose(0, 2, 4, 1, 3, 5).reshape(3, 3, i, 4 * o)), 2)


def conv_down(
    x: Float[AnyArray, "B H W I"], kernel: Float[AnyArray, "3 3 I O"]
) -> Float[Array, "B H//2 W//2 O"]:
    """Apply FIR, then the kernel with stride 2."""
    *_, i, o = kernel.shape
    taps = _convolve_with_fir(kernel).reshape(3, 2, 3, 2, i, o)
    return conv(
        space_to_depth(jnp.asarray(x), 2), taps.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, 4 * i, o)
    )


def _convolve_with_fir(kernel):
    """Return the kernel [3, 3, I, O] convolved with FIR in both directions, [6, 6, I, O]."""
    return jnp.einsum("pt,qs,tsio->pqio", FIR_MATRIX, FIR_MATRIX, kernel)


def modulated_conv(
    x: Float[AnyArray, "B H W I"],
    kernel: Float[AnyArray, "K K I O"],
    style: Float[AnyArray, "B I"],
    operation: Callable = conv,
    demodulate: bool = True,
) -> Float[Array, "B h w O"]:
    """Apply `operation` with a kernel that is modulated by the style and demodulated.

    Source: arXiv 1912.04958, equations 1 and 3. Scaling the weights of an input or of an output is
    the same as scaling that input or that output, so one kernel serves the whole batch. One kernel
    per example would need a grouped convolution, which is far slower.
    operation: `conv`, `conv_up` or `conv_down`.
    """
    y = operation(x * style[:, None, None], kernel)
    if not demodulate:
        return y
    squares = jnp.square(style) @ jnp.square(kernel).sum((0, 1))
    return y * lax.rsqrt(squares + EPSILON)[:, None, None]
