"""Bottlenecks of an autoencoder: quantizers, and a normal distribution (`kl`).

A quantizer replaces the vector at each place by a code, a word of a vocabulary. Gradients go
straight through (arXiv 1308.3432): the gradient of z is that of the vector that replaces it.
`from_fields({"kind": ..., **fields})` makes a Quantizer; its fields are the arguments of the
function with the name `kind`.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Int, Integer, Key

from t2i_jax.core.types import AnyArray
from t2i_jax.models.codebooks import (
    MIN_PROBABILITY,
    mean_per_example,
    nearest,
    straight_through,
    unit_length,
    update_frequency,
    zero_frequency,
)

MIN_MASS = 1e-12  # of a code that any vector was assigned to
LOG_VARIANCE_RANGE = (-30.0, 20.0)  # as in the published autoencoders
# Of squared distances on the unit sphere; several times their rounding error.
SAME_DISTANCE = 2e-6

# Arguments of the functions of a Quantizer.
Vectors = Float[AnyArray, "B h w D"]
Codes = Integer[AnyArray, "*place"]
Keys = Key[Array, "B"]


class Quantized(NamedTuple):
    """The result of a bottleneck in training.

    vectors: for the decoder.
    loss: of the bottleneck itself.
    extra: the next state.
    metrics: {name: array [B]}.
    """

    vectors: Float[Array, "B h w D"]
    loss: Float[Array, "B"]
    extra: Any
    metrics: dict


class Quantizer(NamedTuple):
    """A bottleneck, as pure functions.

    They take parameters and a state `extra`, which training changes without a gradient. Both are
    dicts and may be empty.

    size: of the vocabulary; 0 if there is none ("kl").
    channels: of the encoder's output.
    dim: D, the length of the vectors that the decoder gets.
    init: (rng) -> (params, extra).
    apply: (params, extra, z [B, h, w, channels], keys [B]) -> Quantized, in training.
    latent: (z) -> float [B, h, w, D], what is encoded; for "kl" the mean.
    encode: (params, extra, z or a latent) -> codes int32 [B, h, w]; None for "kl".
    lookup: (params, extra, codes int of any shape [...]) -> vectors [..., D]; None for "kl".
    """

    size: int
    channels: int
    dim: int
    init: Callable
    apply: Callable
    latent: Callable
    encode: Callable | None = None
    lookup: Callable | None = None


def vq(
    size: int, dim: int, normalize: bool = True, commitment: float = 0.25, axis_name=None
) -> Quantizer:
    """Return a quantizer to the nearest of `size` learned vectors (arXiv 1711.00937).

    Its loss is the last two terms of equation 3, as means over numbers.

    size: of the vocabulary.
    dim: length of the vectors.
    normalize: put vectors and codes on the unit sphere (arXiv 2110.04627, section 3.1, which also
        argues for a small `dim`).
    commitment: weight of the term that draws vectors to their codes.
    axis_name: of pmap; None if z is the whole batch.
    """
    project = unit_length if normalize else lambda x: x

    def init(rng):
        return {"codebook": project(jax.random.normal(rng, (size, dim)))}, zero_frequency(size)

    def lookup(params, extra, codes: Codes) -> Float[AnyArray, "*place D"]:
        return project(params["codebook"])[codes]

    def encode(params, extra, z: Vectors) -> Int[AnyArray, "B h w"]:
        return nearest(project(z), project(params["codebook"]))

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        z, codes = project(z), encode(params, extra, z)
        vectors = lookup(params, extra, codes)
        loss = mean_per_example(
            jnp.square(stop_gradient(z) - vectors)
        ) + commitment * mean_per_example(jnp.square(z - stop_gradient(vectors)))
        extra, metrics = update_frequency(extra, codes, size, axis_name)
        return Quantized(straight_through(z, vectors), loss, extra, metrics)

    return Quantizer(size, dim, dim, init, apply, project, encode, lookup)


def ema(
    size: int,
    dim: int,
    normalize: bool = True,
    commitment: float = 0.25,
    decay: float = 0.99,
    dead: float = 0.01,
    axis_name=None,
) -> Quantizer:
    """Return a quantizer whose vectors are running means (arXiv 1711.00937, appendix A.1).

    The vector of a code is the running mean of the vectors that were assigned to it. A dead code
    gets a vector of the batch. The draw is in proportion to the squared distance of a vector from
    its code, as in k-means++ (the Jukebox paper, arXiv 2005.00341, draws uniformly). So all codes
    begin as vectors of the first batch.

    size, dim, normalize, commitment, axis_name: see `vq`.
    decay: of the running means, per batch.
    dead: a code is dead if it is used less often than this, relative to the mean code.
    """
    project = unit_length if normalize else lambda x: x

    def init(rng):
        # Random, for the first batch alone: with zeros everywhere, the gradients of a decoder's
        # norms overflow.
        return {}, {
            **zero_frequency(size),
            "mass": jnp.zeros(size),
            "sum": MIN_MASS * jax.random.normal(rng, (size, dim)),
        }

    def codebook(extra):
        return project(extra["sum"] / jnp.maximum(extra["mass"], MIN_MASS)[:, None])

    def lookup(params, extra, codes: Codes) -> Float[AnyArray, "*place D"]:
        return codebook(extra)[codes]

    def encode(params, extra, z: Vectors) -> Int[AnyArray, "B h w"]:
        # A vector that was drawn for several codes makes copies, which soon differ by rounding
        # alone. The tolerance chooses the first copy. Otherwise the rounding of z would choose, and
        # it depends on how the batch is split over devices.
        return nearest(project(z), codebook(extra), SAME_DISTANCE if normalize else 0.0)

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        z, codes = project(z), encode(params, extra, z)
        vectors = lookup(params, extra, codes)
        loss = commitment * mean_per_example(jnp.square(z - vectors))
        extra = update_codebook(extra, stop_gradient(z), codes, vectors, keys)
        extra, metrics = update_frequency(extra, codes, size, axis_name)
        return Quantized(straight_through(z, vectors), loss, extra, metrics)

    def update_codebook(extra, z, codes, vectors, keys):
        """Return the state after a batch.

        mass [size] is the running share of vectors that were assigned to a code; sum [size, dim] is
        the running sum of those vectors, each divided by the size of its batch.
        """
        points, codes = z.reshape(-1, dim), codes.reshape(-1)
        share = jax.ops.segment_sum(jnp.full(len(points), 1 / len(points)), codes, size)
        total = jax.ops.segment_sum(points / len(points), codes, size)
        if axis_name is not None:
            share, total = jax.lax.pmean((share, total), axis_name)
        mass = decay * extra["mass"] + (1 - decay) * share
        sums = decay * extra["sum"] + (1 - decay) * total
        squared_error = jnp.square(points - vectors.reshape(-1, dim)).sum(1)
        drawn = draw_points(points, squared_error, size, keys, axis_name)
        is_dead = mass * size < dead
        mass = jnp.where(is_dead, 1 / size, mass)
        return {**extra, "mass": mass, "sum": jnp.where(is_dead[:, None], drawn / size, sums)}

    return Quantizer(size, dim, dim, init, apply, project, encode, lookup)


def draw_points(
    points: Float[AnyArray, "N D"],
    weight: Float[AnyArray, "N"],
    count: int,
    keys: Keys,
    axis_name: str | None,
) -> Float[AnyArray, "{count} D"]:
    """Draw `count` points of the global batch, each in proportion to its weight.

    The key is that of the first example of the global batch.
    """
    data = jax.random.key_data(keys[:1])
    if axis_name is not None:
        points, weight, data = (
            jax.lax.all_gather(x, axis_name, tiled=True) for x in (points, weight, data)
        )
    first = jax.random.wrap_key_data(data[0], impl=jax.random.key_impl(keys))
    cumulative = jnp.cumsum(weight)
    targets = cumulative[-1] * jax.random.uniform(first, (count,))
    places = jnp.searchsorted(cumulative, targets, side="right")
    return points[jnp.minimum(places, len(points) - 1)]


def fsq(levels: tuple[int, ...], axis_name=None) -> Quantizer:
    """Return a quantizer that rounds each number (arXiv 2309.15505, equation 1, appendix A.1).

    Every combination of levels is a code. Nothing is learned, and there is no loss.

    levels: for each number of a vector, how many levels it is rounded to, evenly from -1 to 1 (if
        their number is even, approximately).
    axis_name: of pmap; None if z is the whole batch.
    """
    if not levels or min(levels) < 2:
        raise ValueError(f"quantizer.levels is {tuple(levels)}: of each number, 2 or more")
    counts, size = np.array(levels), int(np.prod(levels))
    half, basis = counts // 2, np.cumprod([1, *levels[:-1]])

    def bound(z):
        """Map z into the levels -half .. (levels - 1) // 2; 0 stays 0."""
        reach, shift = (counts - 1) * (1 + 1e-3) / 2, (1 - counts % 2) / 2
        return jnp.tanh(z + np.arctanh(shift / reach)) * reach - shift

    def lookup(params, extra, codes: Codes) -> Float[AnyArray, "*place D"]:
        return ((codes[..., None] // basis % counts - half) / half).astype(jnp.float32)

    def encode(params, extra, z: Vectors) -> Int[AnyArray, "B h w"]:
        return ((jnp.round(bound(z)) + half) * basis).sum(-1).astype(jnp.int32)

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        z, codes = bound(z) / half, encode(params, extra, z)
        extra, metrics = update_frequency(extra, codes, size, axis_name)
        vectors = straight_through(z, lookup(params, extra, codes))
        return Quantized(vectors, jnp.zeros(len(z)), extra, metrics)

    def init(rng):
        return {}, zero_frequency(size)

    return Quantizer(size, len(levels), len(levels), init, apply, lambda z: z, encode, lookup)


def lfq(
    bits: int,
    commitment: float = 0.25,
    entropy: float = 0.1,
    diversity: float = 1.0,
    temperature: float = 1.0,
    axis_name=None,
) -> Quantizer:
    """Return a quantizer to signs (arXiv 2310.05737, equations 3 to 5).

    The sign of each number is a bit of the code. The probability of a code, for the penalty, is a
    softmax of its negative squared distance over `temperature`.

    bits: length of the vectors.
    commitment: weight of the term that draws vectors to their codes.
    entropy: weight of a penalty in nats: the mean entropy of the code of a place, minus `diversity`
        times the entropy of all codes of the batch. It makes each vector sure of its code, and all
        codes used.
    diversity: weight of the second of these entropies.
    temperature: of the probabilities of codes.
    axis_name: of pmap; None if z is the whole batch.
    """
    if bits < 1:
        raise ValueError(f"quantizer.bits is {bits}: 1 or more")
    size, weights = 2**bits, 2 ** np.arange(bits)

    def lookup(params, extra, codes: Codes) -> Float[AnyArray, "*place D"]:
        return ((codes[..., None] // weights % 2) * 2 - 1).astype(jnp.float32)

    def encode(params, extra, z: Vectors) -> Int[AnyArray, "B h w"]:
        return ((z > 0) * weights).sum(-1).astype(jnp.int32)

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        codes = encode(params, extra, z)
        vectors = lookup(params, extra, codes)
        of_places, of_batch = entropies(z)
        loss = commitment * mean_per_example(jnp.square(z - vectors))
        loss = loss + entropy * (of_places - diversity * of_batch)
        extra, metrics = update_frequency(extra, codes, size, axis_name)
        metrics = {
            **metrics,
            "code_entropy": of_places,
            "batch_entropy": jnp.full(len(z), of_batch),
        }
        return Quantized(straight_through(z, vectors), loss, extra, metrics)

    def entropies(z):
        """Return two entropies in nats.

        The first is that of the code of a place, as a mean over places [B]. The second is that of
        the mean probabilities over the global batch [].
        """
        logit = 4 / temperature * z  # of a bit: |z + 1|² - |z - 1|² = 4 z
        log_one, log_zero = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
        # Bits are independent: their entropies add up.
        of_bits = -jnp.exp(log_one) * log_one - jnp.exp(log_zero) * log_zero
        of_bit = jnp.exp(jnp.stack([log_zero, log_one], -1)).reshape(-1, bits, 2)
        left, right = joint(of_bit[:, : bits // 2]), joint(of_bit[:, bits // 2 :])
        # The halves are independent too: one product replaces [places, size] numbers.
        mean = left.T @ right / len(left)
        mean = mean if axis_name is None else jax.lax.pmean(mean, axis_name)
        of_places = of_bits.sum(-1).mean((1, 2))
        return of_places, -jnp.sum(mean * jnp.log(jnp.maximum(mean, MIN_PROBABILITY)))

    def joint(of_bit):
        """Return probabilities [places, 2^n] of all values of n bits from those of each bit.

        of_bit: [places, n, 2].
        """
        of_all = jnp.ones((len(of_bit), 1))
        for bit in range(of_bit.shape[1]):
            of_all = (of_all[:, :, None] * of_bit[:, bit, None, :]).reshape(len(of_bit), -1)
        return of_all

    def init(rng):
        return {}, zero_frequency(size)

    return Quantizer(size, bits, bits, init, apply, lambda z: z, encode, lookup)


def kl(dim: int, axis_name=None) -> Quantizer:
    """Return a bottleneck of normal distributions (arXiv 2112.10752, section 3.1).

    The encoder gives their means and log-variances; training draws from them. The loss is the KL
    divergence from the standard normal distribution in nats, a mean over the numbers of a picture.

    dim: length of the vectors.
    axis_name: not used.
    """

    def split(z):
        mean, log_var = jnp.split(z, 2, axis=-1)
        return mean, jnp.clip(log_var, *LOG_VARIANCE_RANGE)

    def apply(params, extra, z: Vectors, keys: Keys) -> Quantized:
        mean, log_var = split(z)
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        nats = mean_per_example(0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var))
        return Quantized(mean + jnp.exp(0.5 * log_var) * noise, nats, extra, {"kl": nats})

    return Quantizer(0, 2 * dim, dim, lambda rng: ({}, {}), apply, lambda z: split(z)[0])


KINDS = {"vq": vq, "ema": ema, "fsq": fsq, "lfq": lfq, "kl": kl}


def from_fields(fields, axis_name=None) -> Quantizer:
    """Return the quantizer of a config section.

    fields: `kind`, and the arguments of the function with that name.
    axis_name: of pmap, or None.
    Raises ValueError for an unknown kind, an unknown field and a missing one.
    """
    given = dict(fields)
    kind = given.pop("kind", "")
    known = {
        name: x
        for name, x in inspect.signature(load(kind)).parameters.items()
        if name != "axis_name"
    }
    needed = {name for name, x in known.items() if x.default is x.empty}
    if wrong := sorted((set(given) - set(known)) | (needed - set(given))):
        problem = "unknown" if wrong[0] in given else "missing"
        raise ValueError(
            f"quantizer.{wrong[0]} is {problem}: {kind} has {', '.join(known)}, of which it needs "
            f"{', '.join(sorted(needed))}"
        )
    return load(kind)(**given, axis_name=axis_name)


def load(kind: str) -> Callable:
    """Return the function of this name. Raises ValueError, naming all, for an unknown one."""
    if kind not in KINDS:
        raise ValueError(f"there is no quantizer {kind!r}: there are {', '.join(KINDS)}")
    return KINDS[kind]
