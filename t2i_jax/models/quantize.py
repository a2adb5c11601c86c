"""Bottlenecks of an autoencoder: vectors z of each place become codes, a word of a vocabulary each, or (`kl`) random numbers.

Gradients go straight through (arXiv 1308.3432): to z they are those of the vector that stands for its code.
`from_fields({"kind": ..., **fields})` makes a Quantizer; its fields are the arguments of the function of that name.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DECAY = 0.99  # of the running frequency of codes
USED = 0.01  # a code counts as used if its frequency is more than this share of the mean one
LEAST = 1e-12  # mass of a code that stood for something
LARGEST = (-30.0, 20.0)  # of a log-variance, as in the published autoencoders


class Quantized(NamedTuple):
    """vectors: float [B, h, w, D], for the decoder.   loss: [B].   extra: the next state.   metrics: {name: [B]}."""

    vectors: Any
    loss: Any
    extra: Any
    metrics: dict


class Quantizer(NamedTuple):
    """Functions of parameters and of a state that training changes without a gradient; both are dicts, maybe empty.

    size: of the vocabulary; 0 if there is none ("kl").
    channels: what the encoder gives at each place.   dim: the length D of the vectors that the decoder gets.
    init: (rng) -> (params, extra).
    apply: (params, extra, z [B, h, w, channels], keys [B]) -> Quantized, in training.
    latent: (z) -> float [B, h, w, D], what becomes a code; of "kl" the mean.
    encode: (params, extra, z or a latent) -> codes int32 [B, h, w]; of "kl" there are none.
    lookup: (params, extra, codes int of any shape [...]) -> vectors [..., D]; of "kl" there are none.
    """

    size: int
    channels: int
    dim: int
    init: Callable
    apply: Callable
    latent: Callable
    encode: Callable | None = None
    lookup: Callable | None = None


def vq(size: int, dim: int, normalize: bool = True, commitment: float = 0.25, axis_name=None) -> Quantizer:
    """The nearest of `size` learned vectors (arXiv 1711.00937, equation 3, the last two terms, a mean over numbers).

    normalize: vectors and codes lie on the unit sphere (arXiv 2110.04627, section 3.1, as is a small `dim`).
    """
    length = unit if normalize else lambda x: x

    def init(rng):
        return {"codebook": length(jax.random.normal(rng, (size, dim)))}, start(size)

    def lookup(params, extra, codes):
        return length(params["codebook"])[codes]

    def encode(params, extra, z):
        return nearest(length(z), length(params["codebook"]))

    def apply(params, extra, z, keys):
        z, codes = length(z), encode(params, extra, z)
        found = lookup(params, extra, codes)
        loss = means(jnp.square(jax.lax.stop_gradient(z) - found)) + commitment * means(jnp.square(z - held(found)))
        extra, metrics = count(extra, codes, size, axis_name)
        return Quantized(straight_through(z, found), loss, extra, metrics)

    return Quantizer(size, dim, dim, init, apply, length, encode, lookup)


def ema(
    size: int,
    dim: int,
    normalize: bool = True,
    commitment: float = 0.25,
    decay: float = 0.99,
    dead: float = 0.01,
    axis_name=None,
) -> Quantizer:
    """The nearest of `size` vectors, each the running mean of those it stood for (arXiv 1711.00937, appendix A.1).

    A code that is used less than `dead` times as often as the mean one gets a vector of the batch, drawn in proportion to
    its squared distance from its code (so as k-means++ draws; the paper of Jukebox, arXiv 2005.00341, draws uniformly). So
    all codes begin as vectors of the first batch. Other arguments are those of `vq`.
    """
    length = unit if normalize else lambda x: x

    def init(rng):
        # Random for the first batch alone: on zeros everywhere, the gradients of a decoder's norms overflow.
        return {}, {**start(size), "mass": jnp.zeros(size), "sum": LEAST * jax.random.normal(rng, (size, dim))}

    def codebook(extra):
        return length(extra["sum"] / jnp.maximum(extra["mass"], LEAST)[:, None])

    def lookup(params, extra, codes):
        return codebook(extra)[codes]

    def encode(params, extra, z):
        return nearest(length(z), codebook(extra))

    def apply(params, extra, z, keys):
        z, codes = length(z), encode(params, extra, z)
        found = lookup(params, extra, codes)
        loss = commitment * means(jnp.square(z - found))
        extra, metrics = count(update(extra, held(z), codes, found, keys), codes, size, axis_name)
        return Quantized(straight_through(z, found), loss, extra, metrics)

    def update(extra, z, codes, found, keys):
        """The state after a batch: mass [size] is the running share of vectors that a code stood for, sum their share."""
        points, codes = z.reshape(-1, dim), codes.reshape(-1)
        share = jax.ops.segment_sum(jnp.full(len(points), 1 / len(points)), codes, size)
        total = jax.ops.segment_sum(points / len(points), codes, size)
        if axis_name is not None:
            share, total = jax.lax.pmean((share, total), axis_name)
        mass = decay * extra["mass"] + (1 - decay) * share
        sums = decay * extra["sum"] + (1 - decay) * total
        fresh, gone = draw(points, jnp.square(points - found.reshape(-1, dim)).sum(1), keys), mass * size < dead
        mass = jnp.where(gone, 1 / size, mass)
        return {**extra, "mass": mass, "sum": jnp.where(gone[:, None], fresh / size, sums)}

    def draw(points, weight, keys):
        """`size` of the points of the global batch, each drawn in proportion to its weight; by its first example's key."""
        data = jax.random.key_data(keys[:1])
        if axis_name is not None:
            points, weight, data = (jax.lax.all_gather(x, axis_name, tiled=True) for x in (points, weight, data))
        first = jax.random.wrap_key_data(data[0], impl=jax.random.key_impl(keys))
        upto = jnp.cumsum(weight)
        places = jnp.searchsorted(upto, upto[-1] * jax.random.uniform(first, (size,)), side="right")
        return points[jnp.minimum(places, len(points) - 1)]

    return Quantizer(size, dim, dim, init, apply, length, encode, lookup)


def fsq(levels: tuple[int, ...], axis_name=None) -> Quantizer:
    """Each number rounded to one of so many levels, evenly from -1 to 1 (about, if even): every combination is a code
    (arXiv 2309.15505, equation 1 and appendix A.1). Nothing is learned here, and there is no loss.
    """
    if not levels or min(levels) < 2:
        raise ValueError(f"quantizer.levels is {tuple(levels)}: of each number, 2 or more")
    counts, size = np.array(levels), int(np.prod(levels))
    half, basis = counts // 2, np.cumprod([1, *levels[:-1]])

    def bound(z):
        """Within the levels -half .. (levels - 1) // 2; 0 stays 0."""
        reach, shift = (counts - 1) * (1 + 1e-3) / 2, (1 - counts % 2) / 2
        return jnp.tanh(z + np.arctanh(shift / reach)) * reach - shift

    def lookup(params, extra, codes):
        return ((codes[..., None] // basis % counts - half) / half).astype(jnp.float32)

    def encode(params, extra, z):
        return ((jnp.round(bound(z)) + half) * basis).sum(-1).astype(jnp.int32)

    def apply(params, extra, z, keys):
        z, codes = bound(z) / half, encode(params, extra, z)
        extra, metrics = count(extra, codes, size, axis_name)
        return Quantized(straight_through(z, lookup(params, extra, codes)), jnp.zeros(len(z)), extra, metrics)

    return Quantizer(size, len(levels), len(levels), lambda rng: ({}, start(size)), apply, lambda z: z, encode, lookup)


def lfq(
    bits: int,
    commitment: float = 0.25,
    entropy: float = 0.1,
    diversity: float = 1.0,
    temperature: float = 1.0,
    axis_name=None,
) -> Quantizer:
    """The sign of each number is a bit of the code (arXiv 2310.05737, equations 3 to 5).

    entropy: weight of a penalty in nats: how unsure the codes are of each vector, a mean over places, less `diversity` times
    the entropy of all codes of the batch, so that each vector is sure of its code and all codes are used. The probability of
    a code is a softmax of its negative squared distance over `temperature`.
    """
    if bits < 1:
        raise ValueError(f"quantizer.bits is {bits}: 1 or more")
    size, weights = 2**bits, 2 ** np.arange(bits)

    def lookup(params, extra, codes):
        return ((codes[..., None] // weights % 2) * 2 - 1).astype(jnp.float32)

    def encode(params, extra, z):
        return ((z > 0) * weights).sum(-1).astype(jnp.int32)

    def apply(params, extra, z, keys):
        codes = encode(params, extra, z)
        found = lookup(params, extra, codes)
        unsure, spread = entropies(z)
        loss = commitment * means(jnp.square(z - found)) + entropy * (unsure - diversity * spread)
        extra, metrics = count(extra, codes, size, axis_name)
        metrics = {**metrics, "code_entropy": unsure, "batch_entropy": jnp.full(len(z), spread)}
        return Quantized(straight_through(z, found), loss, extra, metrics)

    def entropies(z):
        """Mean entropy of a place's code [B], and the entropy of the mean over the global batch []; nats."""
        logit = 4 / temperature * z  # of a bit: |z + 1|² - |z - 1|² = 4 z
        yes, no = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
        of_bits = -jnp.exp(yes) * yes - jnp.exp(no) * no  # bits are independent: their entropies add up
        of_bit = jnp.exp(jnp.stack([no, yes], -1)).reshape(-1, bits, 2)
        left, right = joint(of_bit[:, : bits // 2]), joint(of_bit[:, bits // 2 :])
        mean = left.T @ right / len(left)  # independent halves: a product instead of [places, size] numbers
        mean = mean if axis_name is None else jax.lax.pmean(mean, axis_name)
        return of_bits.sum(-1).mean((1, 2)), -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-12)))

    def joint(of_bit):
        """Probabilities [places, 2^n] of all values of n bits, of those of each bit [places, n, 2]."""
        of_all = jnp.ones((len(of_bit), 1))
        for bit in range(of_bit.shape[1]):
            of_all = (of_all[:, :, None] * of_bit[:, bit, None, :]).reshape(len(of_bit), -1)
        return of_all

    return Quantizer(size, bits, bits, lambda rng: ({}, start(size)), apply, lambda z: z, encode, lookup)


def kl(dim: int, axis_name=None) -> Quantizer:
    """Draws from a normal distribution whose mean and log-variance the encoder gives (arXiv 2112.10752, section 3.1).

    The loss is the KL divergence from the standard normal distribution in nats, a mean over the numbers of a picture.
    """

    def split(z):
        mean, log_var = jnp.split(z, 2, axis=-1)
        return mean, jnp.clip(log_var, *LARGEST)

    def apply(params, extra, z, keys):
        mean, log_var = split(z)
        noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        nats = means(0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var))
        return Quantized(mean + jnp.exp(0.5 * log_var) * noise, nats, extra, {"kl": nats})

    return Quantizer(0, 2 * dim, dim, lambda rng: ({}, {}), apply, lambda z: split(z)[0])


KINDS = {"vq": vq, "ema": ema, "fsq": fsq, "lfq": lfq, "kl": kl}


def from_fields(fields, axis_name=None) -> Quantizer:
    """The quantizer of a config: `kind`, and the arguments of the function of that name. ValueError for others than it has."""
    given = dict(fields)
    kind = given.pop("kind", "")
    known = {name: x for name, x in inspect.signature(load(kind)).parameters.items() if name != "axis_name"}
    needed = {name for name, x in known.items() if x.default is x.empty}
    if wrong := sorted((set(given) - set(known)) | (needed - set(given))):
        raise ValueError(
            f"quantizer.{wrong[0]} is {'unknown' if wrong[0] in given else 'missing'}: {kind} has {', '.join(known)}, of which "
            f"it needs {', '.join(sorted(needed))}"
        )
    return load(kind)(**given, axis_name=axis_name)


def load(kind: str) -> Callable:
    """The function of that name; ValueError, naming those there are, for another."""
    if kind not in KINDS:
        raise ValueError(f"there is no quantizer {kind!r}: there are {', '.join(KINDS)}")
    return KINDS[kind]


def nearest(z, codebook):
    """The place int32 [...] of the nearest row of codebook [K, D] to each of z [..., D]; of equally near ones the first."""
    # |z - c|² without the term that all codes share; two plain minima, because XLA does not vectorise argmin on CPU.
    product = jnp.matmul(held(z), -2.0 * held(codebook).T, precision="highest")  # rounded as on GPUs, others were nearest
    distance = (codebook**2).sum(1) + product
    first = jnp.where(distance == distance.min(-1, keepdims=True), jnp.arange(len(codebook)), len(codebook))
    return first.min(-1).astype(jnp.int32)


def straight_through(z, found):
    """The value of `found`, the gradient of z."""
    return z + held(found - z)


def unit(x):
    """x [..., D] at unit length; zero stays zero."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-12))


def means(x):
    """[B, ...] -> [B]."""
    return x.reshape(len(x), -1).mean(1)


def held(x):
    """x without a gradient."""
    return jax.lax.stop_gradient(x)


def start(size: int) -> dict:
    """No code was seen yet."""
    return {"frequency": jnp.zeros(size)}


def count(extra, codes, size: int, axis_name):
    """(state with the running frequency of codes [size] after a batch, {perplexity, usage}), both [B] of equal numbers.

    perplexity: exp of the frequencies' entropy, the number of codes if all were used alike.   usage: share of codes in use.
    """
    share = jnp.zeros(size).at[codes.reshape(-1)].add(1 / codes.size)
    share = share if axis_name is None else jax.lax.pmean(share, axis_name)
    frequency = DECAY * extra["frequency"] + (1 - DECAY) * share
    p = frequency / frequency.sum()
    perplexity = jnp.exp(-jnp.sum(p * jnp.log(jnp.maximum(p, 1e-12))))
    metrics = {"perplexity": perplexity, "usage": (p * size > USED).mean()}
    return {**extra, "frequency": frequency}, {name: jnp.full(len(codes), value) for name, value in metrics.items()}
