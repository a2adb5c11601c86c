"""Parallel decoding: many tokens at once, in few steps (MaskGIT, arXiv 2202.04200, section 3.2).

Pure functions.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32, Key

from t2i_jax.core.registry import did_you_mean
from t2i_jax.core.types import AnyArray, Number, Numbers
from t2i_jax.decoding.autoregressive import choose_token

SCHEDULES = {
    "cosine": lambda r: jnp.cos(jnp.pi / 2 * r),
    "linear": lambda r: 1.0 - r,
    "square": lambda r: 1.0 - r**2,
    "cubic": lambda r: 1.0 - r**3,
    "square_root": lambda r: 1.0 - jnp.sqrt(r),
    "arccos": lambda r: jnp.arccos(r) * (2 / jnp.pi),
}


def mask_schedule(name: str) -> Callable:
    """Return gamma: progress in [0, 1] -> the masked share of the tokens, which falls from 1 to 0.

    Source: arXiv 2202.04200, section 3.3. Raises ValueError, naming SCHEDULES, if there is none of
    that name.
    """
    if name not in SCHEDULES:
        raise ValueError(
            f"there is no mask schedule {name!r}: there are {', '.join(SCHEDULES)}"
            f"{did_you_mean(name, SCHEDULES)}"
        )
    return SCHEDULES[name]


def masked_count(schedule: Callable, progress: Numbers, length: Numbers) -> Int32[Array, "..."]:
    """Return ceil(gamma(progress) * length): how many of `length` tokens are masked.

    progress and length broadcast.
    """
    # 0.001 is subtracted, because rounding may push a product that should be whole above it.
    return jnp.maximum(
        jnp.ceil(schedule(jnp.asarray(progress, jnp.float32)) * length - 1e-3), 0
    ).astype(jnp.int32)


def remaining_counts(
    schedule: Callable, length: int | Int[AnyArray, "*batch"], steps: int
) -> Int[Array, "*batch {steps}"]:
    """Return how many tokens are still masked after each step, such that every step draws some.

    The counts are those of `masked_count`, except that they fall by at least 1 a step, to exactly
    0. Where an array has a length below `steps`, its first steps draw nothing.

    length: how many tokens are masked at first.

    Raises ValueError for steps < 1 and, if length is an int, for steps > length.
    """
    if steps < 1 or (isinstance(length, int) and steps > length):
        most = f" and at most {length}, a token a step" if isinstance(length, int) else ""
        raise ValueError(f"{steps} steps of parallel decoding: at least 1{most}")
    i, length = jnp.arange(1, steps + 1), jnp.asarray(length)[..., None]
    # If the count falls by at least 1 a step, then count + i never rises, and it ends at `steps`.
    wanted = jnp.minimum(masked_count(schedule, i / steps, length) + i, length)
    return jnp.minimum(jnp.maximum(jax.lax.cummin(wanted, wanted.ndim - 1), steps) - i, length)


def decode(
    tokens_to_logits: Callable,
    codes: Int[Array, "B N"],
    masked: Bool[Array, "B N"],
    keys: Key[Array, "B"],
    keep: Callable,
    steps: int,
    temperature: Number = 1.0,
    top_k: Number = 0,
    top_p: Number = 1.0,
    second_of: Callable | None = None,
    doubt: Number = 0.0,
) -> Int[Array, "B N"]:
    """Draw all `masked` codes in one compiled loop, and keep the others as given.

    Each step draws every masked token independently, and then fixes those that `keep` selects. The
    last step keeps all. Before it, a drawn token is masked again if the model now gives it a
    probability below `doubt` (the idea of arXiv 2209.04439, with the model as its own critic).

    tokens_to_logits: (codes, masked) -> (logits [B, N, V], a carry for `second_of`). If it does not
        look at masked codes, their values make no difference.
    keys: one random key per row. The tokens of a row depend on its own key only.
    keep: (step, parts, masked, keys) -> bool [B, N]; see `by_confidence`, `by_surprise`. parts: for
        each part of the tokens, its logits and what was drawn from them, int [B, N].
    temperature, top_k, top_p: see decoding/autoregressive.choose.
    second_of: of tokens with two parts, (carry, first [B, N]) -> logits [B, N, M]; see
        `decoding.autoregressive.choose_token`.
    doubt: 0 for a model that was trained on right tokens alone: it believes what it sees.
    """
    draw = functools.partial(choose_token, temperature=temperature, top_k=top_k, top_p=top_p)
    to_draw = masked

    def step(state, i):
        codes, masked = state
        draw_keys, keep_keys = jax.vmap(
            lambda key: jax.random.split(jax.random.fold_in(key, i)), out_axes=1
        )(keys)
        logits, carry = tokens_to_logits(codes, masked)
        rest = second_of and functools.partial(second_of, carry)
        token, parts = draw(draw_keys, logits, rest)
        kept = masked & (keep(i, parts, masked, keep_keys) | (i == steps - 1))
        doubtful = probability(codes, logits, rest) < doubt
        again = to_draw & ~masked & doubtful & (i < steps - 1)
        return (jnp.where(kept, token, codes), masked & ~kept | again), None

    return jax.lax.scan(step, (codes, masked), jnp.arange(steps))[0][0]


def probability(
    codes: Int[Array, "B N"], logits: Float[Array, "B N V"], second_of: Callable | None
) -> Float[Array, "B N"]:
    """Return the probability of codes under logits. Arguments are those of `choose_token`."""

    def log_p(logits, chosen):
        return jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[..., None], -1)[..., 0]

    if second_of is None:
        return jnp.exp(log_p(logits, codes))
    size = jax.eval_shape(second_of, codes).shape[-1]
    first = codes // size
    return jnp.exp(log_p(logits, first) + log_p(second_of(first), codes % size))


def by_confidence(
    remaining: Int[Array, "*batch steps"], choice_temperature: Number = 0.0
) -> Callable:
    """Keep the most confident tokens (MaskGIT, arXiv 2202.04200, section 3.2): `keep` of `decode`.

    The confidence of a token is its log-probability plus Gumbel noise times `choice_temperature`,
    which falls linearly to 0 at the last step. With an infinite `choice_temperature`, tokens are
    kept in random order. One token a step then draws from the model's joint distribution, if it has
    one.

    remaining: int [steps] or [B, steps], how many tokens stay masked after each step, of
        `remaining_counts`.
    """
    steps = remaining.shape[-1]

    def keep(i, parts, masked, keys):
        noise = jax.vmap(lambda key: jax.random.gumbel(key, masked.shape[1:]))(keys)
        log_p = sum(
            jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], -1)[..., 0]
            for logits, drawn in parts
        )
        noisy = log_p + choice_temperature * (1 - (i + 1) / steps) * noise
        order = jnp.where(jnp.isinf(choice_temperature), noise, noisy)
        rank = jnp.argsort(jnp.argsort(jnp.where(masked, order, jnp.inf), axis=-1), axis=-1)
        return rank >= remaining[..., i, None]

    return keep


def by_surprise(sure: Number, temperature: Number = 1.0) -> Callable:
    """Keep every token whose entropy is at most `sure`, plus the most informative of the rest.

    Returns `keep` of `decode`. The entropy, in nats, is that of a token's distribution at
    `temperature` (1 if that is 0), before top-k and top-p. Tokens that are drawn together miss
    their joint distribution by no more than the sum of their entropies (the idea of arXiv
    2505.24857, which bounds the sum).

    The most informative token is the one of greatest entropy among those that were not the most
    likely at their position; if all were the most likely, among all. Objects are thus found one by
    one, and what follows from an object is drawn a step later, whereas `by_confidence` draws all
    objects last and at once. The rule favours what the model considers unlikely: a most likely
    token that N positions share with probability p comes first with p^N, not p.
    """

    def keep(i, parts, masked, keys):
        entropy, surprising, most = 0.0, False, 1.0
        for logits, drawn in parts:
            log_p = jax.nn.log_softmax(logits / jnp.where(temperature > 0, temperature, 1.0))
            p = jnp.exp(log_p)
            entropy += -jnp.where(p > 0, p * log_p, 0).sum(-1)
            surprising |= drawn != logits.argmax(-1)
            most += math.log(logits.shape[-1])
        certain = entropy <= sure
        # Any surprising token goes before all others: no entropy exceeds log(vocabulary size).
        information = jnp.where(masked & ~certain, entropy + surprising * most, -jnp.inf)
        return certain | (jnp.arange(masked.shape[-1]) == information.argmax(-1, keepdims=True))

    return keep
