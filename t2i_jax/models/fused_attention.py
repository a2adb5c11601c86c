"""Fused attention: kernels that never store the matrix of logits (arXiv 2205.14135).

They come with JAX: that of cuDNN on NVIDIA GPUs, and splash attention on TPUs. `attend` uses them
where they apply and computes the same otherwise. Both compute in bfloat16 with a softmax in
float32, and can be differentiated once, in reverse mode.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.extend.backend
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models.mesh_axes import BATCH_AXES, current_mesh

HALVES = (jnp.bfloat16, jnp.float16)
MAX_GPU_CHANNELS = 128  # of a head, on every supported GPU
# Splash attention computes blocks of this many queries and keys. Below MIN_TPU_KEYS, padding to
# whole blocks costs more than the logits do (an estimate; not measured).
TPU_BLOCKS = (512, 256, 128)
MIN_TPU_KEYS = 1024

# One row per example, or one row per query.
Mask = Bool[AnyArray, "#B K"] | Bool[AnyArray, "#B 1 #Q K"]
_plain = False  # read while a program is traced


@contextlib.contextmanager
def no_fused_attention() -> Iterator[None]:
    """Trace attention without fused kernels: for forward mode, or derivatives of second order."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def platform() -> str:
    """Return "cuda", "tpu" or another name: what programs are compiled for."""
    backend = jax.extend.backend.get_backend()
    return "cuda" if "cuda" in backend.platform_version else backend.platform


def find_kernel(q: AnyArray, k: AnyArray, mask: AnyArray | None) -> Callable | None:
    """Return the fused kernel (q, k, v, mask) -> output for such arrays, or None if none fits.

    Arguments: see `models.attention.attend`.
    """
    if _plain or q.dtype not in HALVES or q.shape[1] == 1:
        return None
    if platform() == "cuda":
        channels = q.shape[-1]
        return attend_cudnn if channels % 8 == 0 and channels <= MAX_GPU_CHANNELS else None
    if platform() != "tpu" or k.shape[1] < MIN_TPU_KEYS or (mask is not None and mask.ndim == 4):
        return None
    mesh = current_mesh()
    if mesh is None:
        return attend_splash if jax.device_count() == 1 else None
    shape = mesh.shape
    if q.shape[0] % (shape["data"] * shape["fsdp"]) or k.shape[2] % shape["tensor"]:
        return None
    return _attend_splash_on_mesh


def attend_cudnn(
    q: Float[AnyArray, "B Q heads D"],
    k: Float[AnyArray, "B K kv_heads D"],
    v: Float[AnyArray, "B K kv_heads D"],
    mask: Mask | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B Q heads D"]:
    """Return attention by cuDNN's kernel. Arguments: see `models.attention.attend`.

    A mask [B, K] becomes the number of keys of each example, so it must be True for the first keys
    and False for the rest. Any other mask is added to the logits, for which cuDNN needs even
    numbers of queries and keys: odd ones are padded.
    implementation: "cudnn", or "xla" for the same computation without cuDNN.
    """
    run = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    if mask is None:
        return run(q, k, v)
    if mask.ndim == 2:
        lengths = jnp.broadcast_to(mask.sum(-1, dtype=jnp.int32), q.shape[0])
        # cuDNN divides by zero if an example has no key.
        y = run(q, k, v, key_value_seq_lengths=jnp.maximum(lengths, 1))
        return jnp.where((lengths > 0)[:, None, None, None], y, 0)
    queries = q.shape[1]
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], queries, k.shape[1]))
    some = mask.any(-1).swapaxes(1, 2)[..., None]
    q, k, v = (_pad(x, 1, x.shape[1] + x.shape[1] % 2) for x in (q, k, v))
    mask = _pad(_pad(mask, 2, q.shape[1]), 3, k.shape[1])
    return jnp.where(some, run(q, k, v, mask=mask)[:, :queries], 0)


def attend_splash(
    q: Float[AnyArray, "B Q heads D"],
    k: Float[AnyArray, "B K kv_heads D"],
    v: Float[AnyArray, "B K kv_heads D"],
    mask: Bool[AnyArray, "#B K"] | None = None,
    interpret: bool = False,
) -> Float[Array, "B Q heads D"]:
    """Return attention by JAX's splash kernel for TPUs. Arguments: see `models.attention.attend`.

    Queries and keys are padded to whole blocks.
    interpret: compute without a TPU, slowly.
    """
    (batch, queries, heads, channels), keys = q.shape, k.shape[1]
    if mask is None:
        mask = jnp.ones((1, keys), bool)
    mask = jnp.broadcast_to(mask, (batch, keys))
    groups = heads // k.shape[2]
    k, v = (jnp.repeat(x, groups, axis=2) if groups > 1 else x for x in (k, v))
    padded_q, padded_k = (math.ceil(n / TPU_BLOCKS[-1]) * TPU_BLOCKS[-1] for n in (queries, keys))
    kernel = _splash_kernel(heads, padded_q, padded_k, interpret)
    q, k, v = (
        _pad(x, 1, size).swapaxes(1, 2)
        for x, size in ((q * channels**-0.5, padded_q), (k, padded_k), (v, padded_k))
    )
    segments = splash.SegmentIds(
        q=jnp.ones((batch, padded_q), jnp.int32), kv=_pad(mask, 1, padded_k).astype(jnp.int32)
    )
    y = jax.vmap(kernel)(q, k, v, segments)
    y = y.swapaxes(1, 2)[:, :queries]
    return jnp.where(mask.any(-1)[:, None, None, None], y, 0)


def _splash_kernel(heads: int, queries: int, keys: int, interpret: bool) -> Callable:
    full = splash_attention_mask.FullMask((queries, keys))
    block_q, block_k = (next(b for b in TPU_BLOCKS if n % b == 0) for n in (queries, keys))
    sizes = splash.BlockSizes(
        block_q=block_q,
        block_kv=block_k,
        block_kv_compute=block_k,
        block_q_dkv=block_q,
        block_kv_dkv=block_k,
        block_kv_dkv_compute=block_k,
        block_q_dq=block_q,
        block_kv_dq=block_k,
    )
    return splash.make_splash_mha(
        splash_attention_mask.MultiHeadMask([full] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )


def _attend_splash_on_mesh(q, k, v, mask=None):
    """Return `attend_splash` with the batch and the heads split over the current mesh."""
    if mask is None:
        mask = jnp.ones((1, k.shape[1]), bool)
    mask = jnp.broadcast_to(mask, (q.shape[0], k.shape[1]))
    split = PartitionSpec(BATCH_AXES, None, "tensor", None)
    # XLA cannot split a TPU kernel by itself.
    return jax.shard_map(
        attend_splash,
        mesh=current_mesh(),
        in_specs=(split, split, split, PartitionSpec(BATCH_AXES)),
        out_specs=split,
        check_vma=False,
    )(q, k, v, mask)


def _pad(x, axis: int, size: int):
    """Return x with zeros up to `size` elements along an axis."""
    widths: list[tuple[int, int]] = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)
