"""Fused attention against plain attention: agreement, and time, for the accelerator at hand.

    python benchmarks/attention.py [--rounds=5]

Prints two Markdown tables: attention alone, forwards and backwards, in bfloat16; and the gradient
of a whole DiT-B/2. Both ways take turns, and the median counts. On a CPU both are plain.
"""

import argparse
import contextlib
import statistics
import time

import jax
import jax.numpy as jnp

from t2i_jax.core.text import TextCondition
from t2i_jax.models.attention import attend
from t2i_jax.models.dit import VARIANTS, DiT
from t2i_jax.models.fused_attention import find_kernel, no_fused_attention

SHAPES = ((64, 268), (16, 1024), (2, 4096))  # batch, tokens
HEADS, CHANNELS = 12, 64
BATCH = 64  # of the DiT


def timed(functions: dict, rounds: int) -> dict[str, float]:
    """Return the median seconds of each function, called in turns after one call that compiles."""
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def ways(gradient, *arguments) -> dict:
    """Return {"fused": function, "plain": function}, each compiled when it is first called."""

    def traced(context):
        def run(*arguments):
            with context():
                return gradient(*arguments)

        compiled = jax.jit(run)
        return lambda: compiled(*arguments)

    return {"fused": traced(contextlib.nullcontext), "plain": traced(no_fused_attention)}


def attention_rows(rounds: int) -> None:
    """Print a row for each of SHAPES."""
    print("| batch x tokens | fused | plain, ms | fused, ms | largest difference / scale |")
    print("|---|---|---|---|---|")
    for batch, tokens in SHAPES:
        keys = jax.random.split(jax.random.key(0), 3)
        shape = (batch, tokens, HEADS, CHANNELS)
        qkv = [jax.random.normal(key, shape, jnp.bfloat16) for key in keys]
        lengths = jnp.arange(batch) % 8
        mask = jnp.arange(tokens) < tokens - lengths[:, None]  # as of captions behind a picture

        def loss(q, k, v, mask=mask):
            return jnp.sum(attend(q, k, v, mask).astype(jnp.float32) ** 2)

        both = ways(jax.grad(loss, (0, 1, 2)), *qkv)
        with no_fused_attention():
            exact = jax.jit(jax.grad(loss, (0, 1, 2)))(*(x.astype(jnp.float32) for x in qkv))
        found = jax.block_until_ready(both["fused"]())
        off = max(
            float(jnp.abs(a.astype(jnp.float32) - b).max() / jnp.abs(b).max())
            for a, b in zip(found, exact, strict=True)
        )
        seconds = timed(both, rounds)
        used = "yes" if find_kernel(*qkv[:2], mask) else "no"
        plain, fused = (1000 * seconds[name] for name in ("plain", "fused"))
        print(
            f"| {batch} x {tokens} | {used} | {plain:.2f} | {fused:.2f} | {off:.1e} |", flush=True
        )


def network_rows(rounds: int) -> None:
    """Print the images a second of the gradient of DiT-B/2 on latents of 32 x 32 x 4."""
    net = DiT(**VARIANTS["B/2"], dtype=jnp.bfloat16)
    keys = jax.random.split(jax.random.key(1), 4)
    x = jax.random.normal(keys[0], (BATCH, 32, 32, 4))
    t = jax.random.uniform(keys[1], (BATCH,))
    words = jax.random.normal(keys[2], (BATCH, 12, 128))
    text = TextCondition(words, words.mean(1), jnp.ones((BATCH, 12), bool))
    params = jax.jit(net.init)(keys[3], x[:1], t[:1], jax.tree.map(lambda a: a[:1], text))

    def loss(params):
        return jnp.mean((net.apply(params, x, t, text) - x) ** 2)

    print("\n| DiT-B/2, batch 64 | images a second |\n|---|---|")
    for name, seconds in timed(ways(jax.grad(loss), params), rounds).items():
        print(f"| {name} | {BATCH / seconds:,.1f} |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times that each is measured")
    rounds = parser.parse_args().rounds
    print(f"{jax.devices()[0].device_kind}, JAX {jax.__version__}\n")
    attention_rows(rounds)
    network_rows(rounds)


if __name__ == "__main__":
    main()
