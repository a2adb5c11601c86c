"""Drawing many tokens at once, in a few steps, as MaskGIT does (arXiv 2202.04200, section 3.2). Pure functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from t2i_jax.by_name import hint
from t2i_jax.decoding.autoregressive import choose

SCHEDULES = {
    "cosine": lambda r: jnp.cos(jnp.pi / 2 * r),
    "linear": lambda r: 1.0 - r,
    "square": lambda r: 1.0 - r**2,
    "cubic": lambda r: 1.0 - r**3,
    "square_root": lambda r: 1.0 - jnp.sqrt(r),
    "arccos": lambda r: jnp.arccos(r) * (2 / jnp.pi),
}


def mask_schedule(name: str) -> Callable:
    """gamma(progress in [0, 1]): which part of the tokens is masked; falls from 1 to 0 (arXiv 2202.04200, section 3.3).

    Raises ValueError, listing SCHEDULES, if there is none of that name.
    """
    if name not in SCHEDULES:
        raise ValueError(f"there is no mask schedule {name!r}: there are {', '.join(SCHEDULES)}{hint(name, SCHEDULES)}")
    return SCHEDULES[name]


def masked_count(schedule: Callable, progress, length):
    """ceil(gamma(progress) * length) int32, of how many of `length` tokens are masked; progress and length broadcast."""
    # A little less: a product that should be whole is not made one more by rounding.
    return jnp.maximum(jnp.ceil(schedule(jnp.asarray(progress, jnp.float32)) * length - 1e-3), 0).astype(jnp.int32)


def counts(schedule: Callable, length, steps: int):
    """How many tokens are still masked after each step, int32 [..., steps]: `masked_count`, but every step draws some.

    length: how many are masked at first, an int or ints [...]; the counts fall by at least 1 a step to exactly 0. Where an
    array has a length below `steps`, its first steps draw nothing. Raises ValueError for steps < 1 or, of an int, > length.
    """
    if steps < 1 or (isinstance(length, int) and steps > length):
        most = f" and at most {length}, a token a step" if isinstance(length, int) else ""
        raise ValueError(f"{steps} steps of parallel decoding: at least 1{most}")
    i, length = jnp.arange(1, steps + 1), jnp.asarray(length)[..., None]
    # count + i never rises where the count falls by 1 at least; it ends at `steps` where the last count is 0.
    wanted = jnp.minimum(masked_count(schedule, i / steps, length) + i, length)
    return jnp.minimum(jnp.maximum(jax.lax.cummin(wanted, wanted.ndim - 1), steps) - i, length)


def decode(tokens_to_logits: Callable, codes, masked, keys, keep: Callable, steps: int, temperature=1.0, top_k=0, top_p=1.0):
    """Codes int32 [B, N] with all that were `masked` (bool [B, N]) drawn, and the others as given, in one compiled loop.

    Each of `steps` steps draws every masked token, independently, from tokens_to_logits(codes, masked) -> [B, N, V], as
    `choose` does with temperature, top_k and top_p, and keeps those that keep(step, logits, drawn, masked, keys) -> bool
    [B, N] says (`by_confidence` or `by_surprise`); the last step keeps all.

    keys: one random key a row, [B]; a row's tokens depend on its own key only. What the codes are where they are masked
    makes no difference if tokens_to_logits does not look there.
    """

    def step(state, i):
        codes, masked = state
        draw_keys, keep_keys = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, i)), out_axes=1)(keys)
        logits = tokens_to_logits(codes, masked)
        drawn = choose(draw_keys, logits, temperature, top_k, top_p)
        kept = masked & (keep(i, logits, drawn, masked, keep_keys) | (i == steps - 1))
        return (jnp.where(kept, drawn, codes), masked & ~kept), None

    return jax.lax.scan(step, (codes, masked), jnp.arange(steps))[0][0]


def by_confidence(remaining, choice_temperature=0.0) -> Callable:
    """`keep` of MaskGIT (arXiv 2202.04200, section 3.2): the most confident, leaving as many masked as `remaining` says.

    remaining: int [steps] or [B, steps], of `counts`. A token's confidence is its log-probability plus Gumbel noise times
    `choice_temperature`, which falls linearly to 0 at the last step. With an infinite one, tokens are kept in random
    order: then one token a step draws from the model's joint distribution, where it has one.
    """
    steps = remaining.shape[-1]

    def keep(i, logits, drawn, masked, keys):
        noise = jax.vmap(lambda key: jax.random.gumbel(key, drawn.shape[1:]))(keys)
        sure = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn[..., None], -1)[..., 0]
        noisy = sure + choice_temperature * (1 - (i + 1) / steps) * noise
        order = jnp.where(jnp.isinf(choice_temperature), noise, noisy)
        rank = jnp.argsort(jnp.argsort(jnp.where(masked, order, jnp.inf), axis=-1), axis=-1)
        return rank >= remaining[..., i, None]

    return keep


def by_surprise(sure, temperature=1.0) -> Callable:
    """`keep` of what is certain anyhow, and of the one token that tells most of the others.

    Certain are places whose distribution, at `temperature` (1 if that is 0) and before it is cut, has an entropy of at most
    `sure` nats: drawn together, they miss their joint distribution by no more than the sum of those (the idea of arXiv
    2505.24857, which bounds the sum). The one is that of the greatest entropy among tokens that are not the likeliest of
    their place (if all are, among all). So things are found one by one, and what follows from one is there a step later,
    whereas confidence has them all come last and at once. It favours what the model likes less: a likeliest token that N
    places share with probability p comes first with p^N, not p.
    """

    def keep(i, logits, drawn, masked, keys):
        log_p = jax.nn.log_softmax(logits / jnp.where(temperature > 0, temperature, 1.0))
        p = jnp.exp(log_p)
        entropy = -jnp.where(p > 0, p * log_p, 0).sum(-1)
        certain, surprising = entropy <= sure, drawn != logits.argmax(-1)
        # No entropy is as great as the logarithm of the vocabulary is, plus 1.
        telling = jnp.where(masked & ~certain, entropy + surprising * (jnp.log(logits.shape[-1]) + 1), -jnp.inf)
        return certain | (jnp.arange(drawn.shape[-1]) == telling.argmax(-1, keepdims=True))

    return keep
