"""Small layers that several networks share."""

import functools
import math
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import AnyArray


def matmul(
    x: Float[AnyArray, "*batch inputs"], w: Float[AnyArray, "inputs outputs"]
) -> Float[Array, "*batch outputs"]:
    """Return the product of x and w, with x as a matrix of rows.

    As a matrix, so that the gradient of w is a product of two matrices. With more axes, XLA copies
    the gradient of the result in another order before that product, which takes time on CPU.
    """
    product = jnp.reshape(x, (-1, x.shape[-1])) @ w
    return product.reshape(*x.shape[:-1], w.shape[-1])


def _dot_general(x, w, dimension_numbers, precision=None, preferred_element_type=None):
    # A linear layer has only one way to multiply.
    del dimension_numbers, precision, preferred_element_type
    return matmul(x, w)


Dense = functools.partial(nn.Dense, dot_general=_dot_general)


class Dropout(nn.Module):
    """Dropout whose mask is drawn from one key per example.

    The mask does not depend on how a batch is split. Each place in the network draws its own.

    rate: the probability that a number is set to zero.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *rest"], keys: Key[Array, "B"] | None
    ) -> Float[Array, "B *rest"]:
        """Return x with dropout, or x itself if `keys` is None."""
        if keys is None or self.rate == 0.0:
            return x
        salt = path_salt(self)
        keep = jax.vmap(
            lambda k: jax.random.bernoulli(
                jax.random.fold_in(k, salt), 1.0 - self.rate, x.shape[1:]
            )
        )(keys)
        return jnp.where(keep, x / (1.0 - self.rate), 0).astype(x.dtype)


def path_salt(module: nn.Module) -> int:
    """Return a hash of the module's path. Keys folded with it are the module's own."""
    return zlib.crc32("/".join(module.path).encode())


def sine_embedding(positions: Num[np.ndarray, "N"], width: int) -> Float[np.ndarray, "N {width}"]:
    """Return sines and cosines of positions, whole or not (arXiv 1706.03762, section 3.5)."""
    half = (width + 1) // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def sine_embedding_2d(
    y: Num[np.ndarray, "N"], x: Num[np.ndarray, "N"], width: int
) -> Float[np.ndarray, "N {width}"]:
    """Return sines and cosines of points: half of the channels for y, half for x."""
    parts = [sine_embedding(y, width // 2), sine_embedding(x, width - width // 2)]
    return np.concatenate(parts, axis=1)


def sine_positions(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Return fixed positions of a sequence (arXiv 1706.03762, section 3.5)."""
    return sine_embedding(np.arange(length), width).astype(np.float32)


def sine_positions_2d(rows: int, columns: int, width: int) -> Float[np.ndarray, "N {width}"]:
    """Return fixed positions of the rows * columns cells of a grid, in row order."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1)
    return sine_embedding_2d(y, x, width).astype(np.float32)


def add_positions(
    x: Float[Array, "B N D"], grid: tuple[int, int] | None = None
) -> Float[Array, "B N D"]:
    """Return x plus fixed positions: those of a sequence, or of a grid (rows, columns) if given."""
    width = x.shape[-1]
    positions = sine_positions_2d(*grid, width) if grid else sine_positions(x.shape[1], width)
    return x + positions.astype(x.dtype)


def sine_features(
    x: Num[AnyArray, "*shape"], width: int, max_period: float = 10000.0
) -> Float[Array, "*shape {width}"]:
    """Return cosines, then sines, of numbers at frequencies from 1 down to 1 / max_period."""
    half = width // 2
    angles = jnp.asarray(x, jnp.float32)[..., None] * jnp.exp(
        -np.log(max_period) * jnp.arange(half) / half
    )
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def sine_time(
    t: Num[Array, "B"], width: int, max_period: float = 10000.0
) -> Float[Array, "B {width}"]:
    """Return cosines and sines of times t in [0, 1]. As in DDPM, t is scaled by 1000."""
    return sine_features(1000.0 * t.astype(jnp.float32), width, max_period)


def time_and_text(
    embedded_time: Float[Array, "B T"], text: TextCondition, width: int, dtype
) -> Float[Array, "B {width}"]:
    """Return one vector per example for its time, `text.pooled` and `text.vector`.

    Call it in a module's `__call__`: its layers become layers of that module.
    """

    def dense(name):
        return Dense(width, dtype=dtype, name=name)

    condition = dense("time_out")(nn.silu(dense("time_in")(embedded_time)))
    condition = condition + dense("pooled")(text.pooled)
    if text.vector is not None:
        condition = condition + dense("vector")(text.vector)
    return nn.silu(condition)


def batch_norm(
    x: Float[Array, "B *rest"], train: bool, axis_name: str | None, name: str, affine: bool = True
) -> Float[Array, "B *rest"]:
    """Return BatchNorm (arXiv 1502.03167) of x over the global batch.

    Its running averages are in the collection "batch_stats". Call it in a module's `__call__`: its
    layer becomes a layer of that module.
    Raises ValueError for a batch of one picture in training.
    """
    if train and x.shape[0] * (1 if axis_name is None else jax.lax.axis_size(axis_name)) == 1:
        raise ValueError(
            "BatchNorm cannot be trained on one picture at a time: let train.batch_size be at "
            "least 2"
        )
    norm = nn.BatchNorm(
        not train, momentum=0.9, use_bias=affine, use_scale=affine, axis_name=axis_name, name=name
    )
    return norm(x)


def group_norm(
    x: Float[Array, "B *rest"], dtype, name: str, epsilon: float = 1e-6, groups: int = 32
) -> Float[Array, "B *rest"]:
    """Return GroupNorm (arXiv 1803.08494) of x with `groups`, or as many as divide the channels.

    Call it in a module's `__call__`: its layer becomes a layer of that module.
    """
    return nn.GroupNorm(math.gcd(groups, x.shape[-1]), epsilon=epsilon, dtype=dtype, name=name)(x)


def with_neighbours(
    x: Float[Array, "B N width"], grid: tuple[int, int]
) -> Float[Array, "B N width"]:
    """Take an eighth of the channels from the cell above, one from below, left and right each.

    It has no parameters and costs nearly nothing. Beyond the edge there are zeros. What follows the
    cells of the grid (the text) stays as it is. Source: arXiv 2201.10801, section 3.1.
    """
    rows, columns = grid
    count, eighth = rows * columns, x.shape[-1] // 8
    cells = x[:, :count].reshape(x.shape[0], rows, columns, -1)
    moved, own = jnp.split(cells, [4 * eighth], axis=-1)
    moved = jnp.pad(moved, ((0, 0), (1, 1), (1, 1), (0, 0)))
    above, below, left, right = jnp.split(moved, 4, axis=-1)
    parts = [above[:, :-2, 1:-1], below[:, 2:, 1:-1], left[:, 1:-1, :-2], right[:, 1:-1, 2:], own]
    cells = jnp.concatenate(parts, axis=-1).reshape(x.shape[0], count, -1)
    return jnp.concatenate([cells, x[:, count:]], axis=1)


def space_to_depth(x: Num[Array, "B H W C"], patch: int) -> Num[Array, "B h w D"]:
    """Return [B, H / patch, W / patch, patch^2 C]: each square of pixels becomes one cell."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).swapaxes(2, 3)
    return x.reshape(b, h // patch, w // patch, patch * patch * c)


def depth_to_space(x: Num[Array, "B h w D"], patch: int) -> Num[Array, "B H W C"]:
    """Return [B, h patch, w patch, D / patch^2]: the inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, patch, patch, c // patch**2).swapaxes(2, 3)
    return x.reshape(b, h * patch, w * patch, c // patch**2)
