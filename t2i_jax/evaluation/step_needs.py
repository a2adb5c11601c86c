"""What a train step of a config needs: parameters, FLOPs, memory, exchanges between devices."""

import tempfile
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from t2i_jax.evaluation.flops import count_flops
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.training import needs, parallel, programs, start


def describe_step(config: Any) -> str:
    """Return lines that say what a step under `jit` needs. No run is written."""
    place = parallel.make(ConfigDict({**config.parallel, "mode": "jit"}))
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare_run(config, Path(folder) / "run")
        with prepared.lock:
            made = programs.make_programs(prepared, place)
            shapes = programs.step_shapes(made, prepared, place)
            flops = count_flops(made.update, *shapes)
            compiled = made.update.lower(*shapes).compile()
    memory = compiled.memory_analysis()
    lines = [
        f"parameters: {sum(x.size for x in jax.tree.leaves(shapes[0].params)):,}",
        f"FLOPs of a step: {flops:.4g}, on {jax.device_count()} devices",
        f"memory of a device: {needs.peak_bytes(compiled) / 2**20:,.1f} MiB, of them "
        f"{memory.temp_size_in_bytes / 2**20:,.1f} MiB temporary; there are "
        f"{start.memory_of_a_device() / 2**20:,.0f} MiB",
    ]
    for name, (count, size) in needs.collectives(compiled).items():
        lines.append(f"{name}: {count} in a step, {size / 2**20:,.2f} MiB of results on a device")
    return "\n".join(lines)
