"""Compile and run a training step of a DiT, with its blocks unrolled, recomputed and in one loop.

Prints a table: seconds of the processor for tracing and compiling, and for a step (median of 8),
and the temporary memory of the compiled step. Takes about 5 minutes on one core.

    taskset -c 0 python benchmarks/blocks.py
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.text import TextCondition
from t2i_jax.models.dit import DiT

BATCH, SIDE, WORDS, WIDTH = 8, 16, 16, 128
ROWS = (("none", False), ("full", False), ("none", True), ("full", True))  # remat, scan


def measure(net: DiT) -> tuple[float, float, float]:
    """Return (seconds until the step is compiled, seconds of a step, MiB of temporary memory)."""
    x, t = jnp.ones((BATCH, SIDE, SIDE, 3)), jnp.full(BATCH, 0.5)
    mask = jnp.ones((BATCH, WORDS), bool)
    text = TextCondition(jnp.ones((BATCH, WORDS, WIDTH)), jnp.ones((BATCH, WIDTH)), mask)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda shape: jnp.asarray(0.05 * rng.normal(size=shape.shape), shape.dtype),
        jax.eval_shape(net.init, jax.random.key(0), x, t, text),
    )

    def step(params):
        def loss(params):
            return jnp.square(net.apply(params, x, t, text)).mean()

        return jax.tree.map(lambda w, g: w - 1e-3 * g, params, jax.grad(loss)(params))

    began = time.process_time()
    compiled = jax.jit(step, donate_argnums=0).lower(params).compile()
    until_compiled = time.process_time() - began
    seconds = []
    for _ in range(9):
        began = time.process_time()
        params = jax.block_until_ready(compiled(params))
        seconds.append(time.process_time() - began)
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return until_compiled, float(np.median(seconds[1:])), memory


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", nargs="*", type=int, default=[4, 28], help="numbers of blocks")
    print("| depth | remat | scan | compile, s | step, s | temporary memory, MiB |")
    print("|---|---|---|---|---|---|", flush=True)
    for depth in parser.parse_args().depths:
        for remat, scan in ROWS:
            net = DiT(patch=2, width=WIDTH, depth=depth, heads=4, remat=remat, scan=scan)
            compiling, step, memory = measure(net)
            row = f"| {depth} | {remat} | {scan} | {compiling:.1f} | {step:.3f} | {memory:.0f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
