"""Drawing tokens one after another: choosing a token from logits, and the loop around it. Pure functions."""

import jax
import jax.numpy as jnp


def filter_logits(logits, temperature, top_k, top_p):
    """Logits [..., V] divided by `temperature`, with -inf outside the `top_k` best and outside the nucleus `top_p`.

    top_k = 0 and top_p = 1 keep all; ties with the last kept logit are kept. All settings may be traced numbers. The
    nucleus is the smallest set of best tokens whose probability reaches top_p (arXiv 1904.09751, eq. 3).
    """
    logits = logits / jnp.maximum(temperature, 1e-6)

    def keep_best(logits):
        ranked = jnp.sort(logits, axis=-1)[..., ::-1]
        size = logits.shape[-1]
        before = jnp.cumsum(jax.nn.softmax(ranked), axis=-1) - jax.nn.softmax(ranked)
        last = jnp.maximum((before < top_p).sum(-1), 1)
        last = jnp.minimum(last, jnp.where(top_k > 0, top_k, size)) - 1
        return jnp.where(logits < jnp.take_along_axis(ranked, last[..., None], -1), -jnp.inf, logits)

    # Sorting is half of a small model's sampling time: leave it out when nothing is cut.
    return jax.lax.cond((top_k > 0) | (top_p < 1.0), keep_best, lambda x: x, logits)


def choose(keys, logits, temperature=1.0, top_k=0, top_p=1.0):
    """One token int32 [B] from logits [B, V], with one key a row; temperature 0 takes the best token."""
    drawn = jax.vmap(jax.random.categorical)(keys, filter_logits(logits, temperature, top_k, top_p))
    return jnp.where(temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


def generate(logits_of, carry, length: int, keys, temperature=1.0, top_k=0, top_p=1.0):
    """Draw `length` tokens int32 [B, length] in one compiled loop.

    logits_of(carry, tokens [B, length], i) -> (logits [B, V], carry), where the tokens before i are drawn, the others 0.
    keys: one random key a row, [B]; a row's tokens depend on its own key only.
    """

    def step(state, i):
        carry, tokens = state
        logits, carry = logits_of(carry, tokens, i)
        step_keys = jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)
        return (carry, tokens.at[:, i].set(choose(step_keys, logits, temperature, top_k, top_p))), None

    start = jnp.zeros((keys.shape[0], length), jnp.int32)
    return jax.lax.scan(step, (carry, start), jnp.arange(length))[0][1]
