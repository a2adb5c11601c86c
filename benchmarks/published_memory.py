"""Peak memory of loading and converting a generated Stable Diffusion of 2 GB.

    python benchmarks/published_memory.py

Two folders are written as diffusers writes them, with random numbers: Stable Diffusion 1 in
float16, and a float32 one whose U-Net has 0.6 of its channels. Then each command runs in a process
of its own. Its peak is the largest resident memory that the system counted (Linux), less that of a
process that only imports. Needs about 10 GB of disk and 7 GB of memory.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

CHANNELS = {"float16": (320, 640, 1280, 1280), "float32": (192, 384, 768, 768)}  # of the U-Net
LETTERS = 49406  # CLIP's vocabulary has so many tokens, and two special ones
IMPORTS = "import t2i_jax.commands, t2i_jax.pipeline, t2i_jax.runs.converted"
LOAD = "import sys, t2i_jax; t2i_jax.load(sys.argv[1], dtype=sys.argv[2])"


def write_pipeline(folder: Path, dtype: str) -> None:
    """Write a pipeline with random numbers of this type. No two of its arrays are in memory.

    All parameters are views of the same numbers, as many as the largest has.
    """
    import jax
    import numpy as np

    from t2i_jax import config as configs
    from t2i_jax.convert import diffusers_out
    from t2i_jax.convert.diffusers_parts import read_tokenizer
    from t2i_jax.core.importer import Imported
    from t2i_jax.families.published_autoencoder import make_autoencoder
    from t2i_jax.families.stable_diffusion import make_net
    from t2i_jax.models import autoencoder_kl, clip, sd_unet
    from t2i_jax.text import clip_tokenizer
    from t2i_jax.text.clip import make_tower

    words = [*(f"w{i}" for i in range(LETTERS)), clip_tokenizer.START, clip_tokenizer.END]
    (folder / "words").mkdir(parents=True)
    (folder / "words" / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "words" / "merges.txt").write_text("#version: 0.2\n")
    overrides = [f"model.channels={CHANNELS[dtype]}"]
    config = configs.load(str(ROOT / "configs/stable_diffusion.py"), overrides)
    tower, _, _ = make_tower(config.text.towers["text_encoder"])
    shapes = {
        "net": sd_unet.param_shapes(make_net(config)),
        "first_stage": autoencoder_kl.param_shapes(make_autoencoder(config)),
        "text": {"text_encoder": clip.text_param_shapes(tower)},
    }
    largest = max(shape.size for shape in jax.tree.leaves(shapes))
    numbers = (0.02 * np.random.default_rng(0).normal(size=largest)).astype(dtype)
    views = jax.tree.map(lambda shape: numbers[: shape.size].reshape(shape.shape), shapes)
    null = {"tokens": np.zeros(config.text.length, np.int32), "mask": np.ones(1, bool)}
    frozen = {**views, "null_text": {"clip": null}}
    params = {"model": {"text": {}, "net": frozen.pop("net")}}
    model = Imported(config, params, frozen, read_tokenizer(folder / "words"))
    diffusers_out.write(model, folder)
    shutil.rmtree(folder / "words")


def peak_of(*command: str) -> int:
    """Return the largest resident memory of a command's process, in bytes."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read()}")
    return usage.ru_maxrss * 1024


def size_of(folder: Path) -> int:
    """Return the bytes of the weight files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def measure(folder: Path, dtype: str) -> None:
    """Print a line for each command, with a pipeline in files of this type."""
    here, run, out = str(folder / "pipeline"), str(folder / "run"), str(folder / "out")
    peak_of(__file__, f"--write={here}", f"--dtype={dtype}")
    files, width = size_of(folder / "pipeline"), {"float32": 4, "bfloat16": 2}
    idle = peak_of("-c", IMPORTS)
    loads = {f'load(FOLDER, dtype="{of}")': (of, ("-c", LOAD, here, of)) for of in width}
    commands = {
        **loads,
        "convert --from=FOLDER": (
            "float32",
            ("main.py", "convert", f"--from={here}", f"--workdir={run}"),
        ),
        "convert --to=FOLDER": (
            "float32",
            ("main.py", "convert", f"--workdir={run}", f"--to={out}"),
        ),
    }
    for name, (kept, command) in commands.items():
        arrays = files / int(dtype.removeprefix("float")) * 8 * width[kept]
        peak = peak_of(*command) - idle
        numbers = f"{files / 1e9:.2f} GB | {arrays / 1e9:.2f} GB | {peak / 1e9:.2f} GB"
        print(
            f"| {dtype} | `{name}` | {numbers} | {peak / files:.2f} | {peak / arrays:.2f} |",
            flush=True,
        )


def main() -> None:
    """Print a table, or write one pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="only write a pipeline to this folder")
    parser.add_argument("--dtype", choices=[*CHANNELS], nargs="+", default=[*CHANNELS])
    args = parser.parse_args()
    if args.write:
        write_pipeline(args.write, args.dtype[0])
        return
    print("| files | | files | arrays in memory | peak | over files | over arrays |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for dtype in args.dtype:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), dtype)


if __name__ == "__main__":
    main()
