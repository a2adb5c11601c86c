"""Functions that quantizers share: nearest codes, gradients, and the frequency of codes."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int, Integer

from t2i_jax.core.types import AnyArray

FREQUENCY_DECAY = 0.99  # per batch, of the running frequency of codes
MIN_USED_FREQUENCY = 0.01  # of a code that counts as used, relative to the mean frequency
MIN_SQUARED_LENGTH = 1e-12
MIN_PROBABILITY = 1e-12  # keeps logarithms finite


def nearest(
    z: Float[AnyArray, "*place D"], codebook: Float[AnyArray, "K D"], tolerance: float = 0.0
) -> Int[Array, "*place"]:
    """Return int32 indices of the nearest row of the codebook; of equally near ones the first.

    tolerance: squared distances that exceed the smallest one by no more than this are equally near.
    """
    # |z - c|², without the term that all codes share. At the lower precision that GPUs use by
    # default, other codes were the nearest.
    product = jnp.matmul(stop_gradient(z), -2.0 * stop_gradient(codebook).T, precision="highest")
    distance = (codebook**2).sum(1) + product
    # Two minima, because XLA does not vectorise argmin on CPU.
    limit = distance.min(-1, keepdims=True) + tolerance
    first = jnp.where(distance <= limit, jnp.arange(len(codebook)), len(codebook))
    return first.min(-1).astype(jnp.int32)


def straight_through(
    z: Float[AnyArray, "*shape"], vectors: Float[AnyArray, "*shape"]
) -> Float[Array, "*shape"]:
    """Return the value of `vectors` with the gradient of z."""
    return jnp.asarray(z) + stop_gradient(vectors - z)


def unit_length(x: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
    """Return x [..., D] with vectors of length 1; zero stays zero."""
    squares = jnp.square(x).sum(-1, keepdims=True)
    return jnp.asarray(x) * jax.lax.rsqrt(jnp.maximum(squares, MIN_SQUARED_LENGTH))


def mean_per_example(x: Float[AnyArray, "B ..."]) -> Float[Array, "B"]:
    """Return the mean of all numbers of each example."""
    return jnp.reshape(x, (len(x), -1)).mean(1)


def zero_frequency(size: int) -> dict[str, Float[Array, "{size}"]]:
    """Return the state of `update_frequency` before the first batch."""
    return {"frequency": jnp.zeros(size)}


def update_frequency(
    extra: dict, codes: Integer[AnyArray, "B ..."], size: int, axis_name: str | None
) -> tuple[dict, dict[str, Float[Array, "B"]]]:
    """Return (state after a batch, metrics).

    extra: {"frequency": the running frequency of codes [size], ...}.
    metrics: {"perplexity", "usage"}, the same for all examples. Perplexity is the exponential of
        the entropy of the frequencies: the number of codes, if all were used equally. Usage is the
        share of the codes in use.
    """
    share = jnp.zeros(size).at[codes.reshape(-1)].add(1 / codes.size)
    share = share if axis_name is None else jax.lax.pmean(share, axis_name)
    frequency = FREQUENCY_DECAY * extra["frequency"] + (1 - FREQUENCY_DECAY) * share
    p = frequency / frequency.sum()
    perplexity = jnp.exp(-jnp.sum(p * jnp.log(jnp.maximum(p, MIN_PROBABILITY))))
    metrics = {"perplexity": perplexity, "usage": (p * size > MIN_USED_FREQUENCY).mean()}
    return {**extra, "frequency": frequency}, {
        name: jnp.full(len(codes), value) for name, value in metrics.items()
    }
