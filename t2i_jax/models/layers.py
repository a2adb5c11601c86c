"""Small layers that several networks share."""

import functools
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@jax.custom_vjp
def matmul(x, w):
    """x [..., in] times w [in, out].

    The gradient of w transposes whichever of its two operands is narrower: on CPU, XLA copies the operand, and took three
    times as long to transpose the wider one. Elsewhere it makes no difference.
    """
    return x @ w


def _matmul_forward(x, w):
    return x @ w, (x, w)


def _matmul_backward(saved, dy):
    x, w = saved
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dw = rows.T @ dy_rows if w.shape[0] <= w.shape[1] else (dy_rows.T @ rows).T
    return dy @ w.T, dw


matmul.defvjp(_matmul_forward, _matmul_backward)


def _dot_general(x, w, dimension_numbers, precision=None, preferred_element_type=None):
    del dimension_numbers, precision, preferred_element_type  # a linear layer has only one way to multiply
    return matmul(x, w)


Dense = functools.partial(nn.Dense, dot_general=_dot_general)


class Dropout(nn.Module):
    """Dropout whose mask is drawn from one key an example, so that it does not depend on how a batch is split.

    Call with x [B, ...] and keys [B] (or None: no dropout). Each place in the network folds its own path into the keys.
    """

    rate: float

    @nn.compact
    def __call__(self, x, keys):
        if keys is None or self.rate == 0.0:
            return x
        salt = zlib.crc32("/".join(self.path).encode())
        keep = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, salt), 1.0 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0).astype(x.dtype)


def sine_positions(length: int, width: int) -> np.ndarray:
    """Fixed sine and cosine positions [length, width] (arXiv 1706.03762, section 3.5)."""
    return sines(np.arange(length), width).astype(np.float32)


def sine_positions_2d(height: int, width_cells: int, width: int) -> np.ndarray:
    """Fixed positions of a grid in row order [height * width_cells, width]: half the channels for y, half for x."""
    y, x = np.mgrid[:height, :width_cells].reshape(2, -1)
    return np.concatenate([sines(y, width // 2), sines(x, width - width // 2)], axis=1).astype(np.float32)


def sines(position: np.ndarray, width: int) -> np.ndarray:
    """Sine and cosine positions [N, width] of places [N], whole or not (arXiv 1706.03762, section 3.5)."""
    half = (width + 1) // 2
    angles = position[:, None] * 10000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def sine_time(t, width: int, max_period: float = 10000.0):
    """Embedding of a time t [B] in [0, 1] as [B, width] (the DDPM convention: t is scaled by 1000)."""
    half = width // 2
    angles = 1000.0 * t.astype(jnp.float32)[:, None] * jnp.exp(-np.log(max_period) * jnp.arange(half) / half)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


def to_unit(image):
    """uint8 pictures as float32 in [-1, 1]."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def from_unit(image):
    """Float pictures in [-1, 1] as uint8, rounded and clipped."""
    return jnp.clip(jnp.round((image.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


def to_channels(image, channels: int):
    """Pictures [B, H, W, 3] with so many channels: 3, or 1, the mean, for grey ones."""
    if channels not in (1, 3):
        raise ValueError(f"model.channels is {channels}: pictures have 3 (colour) or 1 (grey)")
    return image if channels == 3 else image.mean(-1, keepdims=True)


def to_rgb(image):
    """Pictures [B, H, W, 1 or 3] with 3 channels."""
    return jnp.broadcast_to(image, (*image.shape[:3], 3))


def batch_norm(x, train: bool, axis_name: str | None, name: str, affine: bool = True):
    """BatchNorm (arXiv 1502.03167) over the global batch, its running averages in the collection "batch_stats".

    To be called in a module's `__call__`, whose layer it becomes. Raises ValueError for a batch of one in training.
    """
    if train and x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)) == 1:
        raise ValueError("BatchNorm cannot be trained on one picture at a time: let train.batch_size be at least 2")
    norm = nn.BatchNorm(not train, momentum=0.9, use_bias=affine, use_scale=affine, axis_name=axis_name, name=name)
    return norm(x)
