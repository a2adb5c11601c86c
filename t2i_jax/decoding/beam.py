"""Writing sequences that end: when to stop, and the search for likely ones. Pure functions."""

import jax
import jax.numpy as jnp


def ending(logits_of, end: int, pad: int = 0):
    """`logits_of` (see decoding/autoregressive.generate) of rows that stop.

    After the token `end` comes `pad` alone, and before it never; the last place of a row that has not ended is `end`.
    """

    def stopped(carry, tokens, i):
        logits, carry = logits_of(carry, tokens, i)
        words, ended = jnp.arange(logits.shape[-1]), (tokens == end).any(-1, keepdims=True)
        certain = jnp.where(words == jnp.where(ended, pad, end), 0.0, -jnp.inf)
        free = jnp.where(words == pad, -jnp.inf, logits)
        return jnp.where(ended | (i == tokens.shape[1] - 1), certain, free), carry

    return stopped


def length_penalty(length, alpha):
    """What the log-probability of a sequence of so many tokens is divided by (arXiv 1609.08144, equation 14)."""
    return ((5.0 + length) / 6.0) ** alpha


def search(logits_of, carry, length: int, beams: int, alpha=0.0, pad: int = 0):
    """The likeliest sequences that beam search finds: tokens int32 [B, beams, length], scores float32 [B, beams], best first.

    logits_of(carry, tokens [B * beams, length], i) -> (logits [B * beams, V], carry): of `ending`.
    carry: a tree of arrays [B, ...], which follow their beams.
    A score is the log-probability over `length_penalty`. A sequence that has ended stays among the beams as long as its score
    is one of the best. Where there are fewer sequences than beams, the others have a score of -inf.
    """
    count = jax.tree.leaves(carry)[0].shape[0]
    rows = jnp.arange(count)[:, None] * beams
    carry = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), carry)
    tokens = jnp.full((count * beams, length), pad, jnp.int32)
    total = jnp.full((count, beams), -jnp.inf).at[:, 0].set(0.0)  # all beams are still the same one

    def step(state, i):
        carry, tokens, total, _ = state
        logits, carry = logits_of(carry, tokens, i)
        written = (tokens != pad).sum(-1, keepdims=True) + (jnp.arange(logits.shape[-1]) != pad)
        totals = total[:, :, None] + jax.nn.log_softmax(logits).reshape(count, beams, -1)
        scores = totals / length_penalty(written, alpha).reshape(totals.shape)
        scores, best = jax.lax.top_k(scores.reshape(count, -1), beams)
        parent, token = (rows + best // logits.shape[-1]).ravel(), best % logits.shape[-1]
        total = jnp.take_along_axis(totals.reshape(count, -1), best, axis=1)
        carry, tokens = jax.tree.map(lambda x: x[parent], (carry, tokens))
        return (carry, tokens.at[:, i].set(token.ravel()), total, scores), None

    (_, tokens, _, scores), _ = jax.lax.scan(step, (carry, tokens, total, total), jnp.arange(length))
    return tokens.reshape(count, beams, length), scores
