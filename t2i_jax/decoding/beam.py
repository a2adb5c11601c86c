"""Writing sequences that end: a stop rule, and beam search for likely sequences. Pure functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from t2i_jax.core.types import Number, Numbers


def stop_at_end(logits_of: Callable, end: int, pad: int = 0) -> Callable:
    """Return `logits_of` (see decoding/autoregressive.generate) with a stop rule.

    After the token `end` only `pad` is possible, and before it `pad` is impossible. The last
    position of a row that has not ended yet is `end`.
    """

    def stopped(carry, tokens, i):
        logits, carry = logits_of(carry, tokens, i)
        words, ended = jnp.arange(logits.shape[-1]), (tokens == end).any(-1, keepdims=True)
        certain = jnp.where(words == jnp.where(ended, pad, end), 0.0, -jnp.inf)
        free = jnp.where(words == pad, -jnp.inf, logits)
        return jnp.where(ended | (i == tokens.shape[1] - 1), certain, free), carry

    return stopped


def length_penalty(length: Numbers, alpha: Number) -> Numbers:
    """Return ((5 + length) / 6)^alpha, which divides the log-probability of a sequence.

    length: number of tokens. Source: arXiv 1609.08144, equation 14.
    """
    return ((5.0 + length) / 6.0) ** alpha


def beam_search(
    logits_of: Callable, carry, length: int, beams: int, alpha: Number = 0.0, pad: int = 0
) -> tuple[Int[Array, "B {beams} {length}"], Float[Array, "B {beams}"]]:
    """Find likely sequences. Returns (tokens int32, scores float32), the best beam first.

    A score is the log-probability divided by `length_penalty`. A sequence that has ended stays
    among the beams as long as its score is one of the best. Where there are fewer sequences than
    beams, the scores of the other beams are -inf.

    logits_of: (carry, tokens [B * beams, length], i) -> (logits [B * beams, V], carry), with a stop
        rule, as `stop_at_end` returns it.
    carry: a tree of arrays [B, ...]. Each beam has its own copy, which follows it.
    """
    count = jax.tree.leaves(carry)[0].shape[0]
    rows = jnp.arange(count)[:, None] * beams
    carry = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), carry)
    tokens = jnp.full((count * beams, length), pad, jnp.int32)
    # At first all beams are equal: only the first one counts.
    total = jnp.full((count, beams), -jnp.inf).at[:, 0].set(0.0)

    def step(state, i):
        carry, tokens, total, _ = state
        logits, carry = logits_of(carry, tokens, i)
        written = (tokens != pad).sum(-1, keepdims=True) + (jnp.arange(logits.shape[-1]) != pad)
        totals = total[:, :, None] + jax.nn.log_softmax(logits).reshape(count, beams, -1)
        scores = totals / jnp.reshape(length_penalty(written, alpha), totals.shape)
        scores, best = jax.lax.top_k(scores.reshape(count, -1), beams)
        parent, token = (rows + best // logits.shape[-1]).ravel(), best % logits.shape[-1]
        total = jnp.take_along_axis(totals.reshape(count, -1), best, axis=1)
        carry, tokens = jax.tree.map(lambda x: x[parent], (carry, tokens))
        return (carry, tokens.at[:, i].set(token.ravel()), total, scores), None

    (_, tokens, _, scores), _ = jax.lax.scan(
        step, (carry, tokens, total, total), jnp.arange(length)
    )
    return tokens.reshape(count, beams, length), scores
