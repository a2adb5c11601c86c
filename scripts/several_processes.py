"""Train the same runs with one device, with several processes, and on several meshes; compare them.

Prints a table: the largest relative difference of a loss and of any number in metrics.jsonl, and
the files of the run folders that are not equal. It ends with exit code 1 if a loss differs by more
than 1e-5. Takes about 30 minutes on 2 cores.

    python scripts/several_processes.py
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Autoregressive, diffusion, GAN, and a loss that compares examples of all devices.
RUNS = ("shapes", "shapes_diffusion", "shapes_gan", "shapes_contrastive")
ALONE = (1, 1, 1, 1)
# processes, devices of each, fsdp, tensor
LAYOUTS = ((2, 2, 1, 1), (4, 2, 1, 1), (4, 2, 4, 2), (4, 2, 2, 4))
SETTINGS = {
    "train.steps": 20,
    "train.batch_size": 16,
    "train.log_every": 1,
    "train.save_every": 20,
    "train.eval_every": 20,
    "evaluate.num": 4,
}
DROPOUT = {name: {"model.dropout": 0.1} for name in RUNS if name != "shapes_gan"}
LIMIT = 1e-5
# Written anew by each run, or by each device in its own order.
NOT_COMPARED = ("README.md", "timing.jsonl", "lock", "tensorboard", "checkpoints")


def train(name: str, workdir: Path, layout: tuple[int, int, int, int]) -> None:
    """Train a config's smoke variant on processes x devices. Raises RuntimeError if one fails."""
    count, devices, fsdp, tensor = layout
    settings = SETTINGS | DROPOUT.get(name, {})
    settings |= {"parallel.fsdp": fsdp, "parallel.tensor": tensor}
    command = [sys.executable, "main.py", "train", f"--config=configs/{name}.py:smoke"]
    command += [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in settings.items())]
    if count > 1:
        command += [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    running = [
        subprocess.Popen(
            [*command, f"--process_id={i}"] if count > 1 else command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [process.communicate()[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        if process.returncode:
            raise RuntimeError(f"{name} on {layout} failed:\n{output[-3000:]}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def largest_differences(one: Path, other: Path) -> tuple[float, float]:
    """Return the largest relative difference of a loss, and of any number, in metrics.jsonl."""
    rows = [
        [json.loads(line) for line in (w / "metrics.jsonl").read_text("utf-8").splitlines()]
        for w in (one, other)
    ]
    if [sorted(row) for row in rows[0]] != [sorted(row) for row in rows[1]]:
        return float("inf"), float("inf")
    found = [
        (name, abs(a[name] - b[name]) / max(abs(a[name]), 1e-12))
        for a, b in zip(*rows, strict=True)
        for name in a
    ]
    losses = [difference for name, difference in found if name.endswith("loss")]
    return max(losses), max(difference for _, difference in found)


def unequal_files(one: Path, other: Path) -> list[str]:
    """Return the files of two run folders that are not equal, byte by byte, or only in one."""
    files = [
        {str(p.relative_to(w)): p.read_bytes() for p in w.rglob("*") if p.is_file()}
        for w in (one, other)
    ]
    names = sorted(files[0].keys() | files[1].keys())
    return [
        name
        for name in names
        if Path(name).parts[0] not in NOT_COMPARED and files[0].get(name) != files[1].get(name)
    ]


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), help="configs to train")
    arguments = parser.parse_args()
    worst = 0.0
    print(
        "| run | processes x devices | fsdp | tensor | largest difference of a loss | of any "
        "number | unequal files |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.runs:
            alone = Path(folder) / f"{name}_alone"
            train(name, alone, ALONE)
            for i, layout in enumerate(LAYOUTS):
                workdir = Path(folder) / f"{name}_{i}"
                train(name, workdir, layout)
                loss, any_number = largest_differences(alone, workdir)
                worst = max(worst, loss)
                count, devices, fsdp, tensor = layout
                files = ", ".join(unequal_files(alone, workdir)) or "none"
                print(
                    f"| `{name}` | {count} x {devices} | {fsdp} | {tensor} | {loss:.1e} | "
                    f"{any_number:.1e} | {files} |",
                    flush=True,
                )
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
