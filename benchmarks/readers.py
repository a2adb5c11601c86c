"""Pictures a second of both readers (data/read_ahead.py), where nothing else takes time.

    python benchmarks/readers.py

Two sources are read: captioned shapes of 32 px (batches of 64), and JPEG files of 512 px in tar
shards (batches of 16), which are decoded anew every time. The shards are written to a temporary
folder first. Each number is the median of REPEATS runs.
"""

import io
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from PIL import Image

from t2i_jax.core.threads import num_threads
from t2i_jax.data import loader, picture_reader
from t2i_jax.data.load import load_source

REPEATS = 3
JPEGS_PER_SHARD, NUM_SHARDS = 200, 2
READERS = ("tf.data", "threads")


def jpeg(seed: int) -> bytes:
    """Return a JPEG file of 512 px with large shapes and some noise, as photographs have: 60 KB."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((512, 512), Image.Resampling.BICUBIC))
    noisy = np.clip(smooth + rng.normal(0, 6, (512, 512, 1)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_shards(folder: Path) -> float:
    """Write tar files of JPEG files and captions. Returns the mean size of a JPEG file in KB."""
    sizes = []
    for number in range(NUM_SHARDS):
        with tarfile.open(folder / f"{number:05}.tar", "w") as archive:
            for i in range(number * JPEGS_PER_SHARD, (number + 1) * JPEGS_PER_SHARD):
                picture = jpeg(i)
                sizes.append(len(picture) / 1000)
                for name, content in (("jpg", picture), ("txt", f"picture {i}".encode())):
                    info = tarfile.TarInfo(f"{i:09}.{name}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return statistics.mean(sizes)


def pictures_a_second(source, batch_size: int, steps: int, reader: str) -> float:
    """Return how many pictures a reader gives a second, from the first batch to the last."""
    batches = loader.batches(source, {}, batch_size, 0, 0, steps + 1, reader=reader)
    next(batches)
    began = time.perf_counter()
    count = sum(len(batch["image"]) for batch in batches)
    return count / (time.perf_counter() - began)


def main() -> None:
    """Print one line for each source and reader."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    picture_reader.CACHE_BYTES = 0  # as for a set that is larger than the memory
    with tempfile.TemporaryDirectory() as folder:
        os.environ["T2I_JAX_DATA"] = f"{folder}/prepared"
        shapes = load_source(SimpleNamespace(name="shapes", resolution=32, scenes=2000), "train")
        size = write_shards(Path(folder))
        began = time.perf_counter()
        config = SimpleNamespace(name="webdataset", path=folder, resolution=512)
        jpegs = load_source(config, "train")
        seconds = time.perf_counter() - began
        speed = JPEGS_PER_SHARD * NUM_SHARDS / seconds
        print(f"{num_threads()} threads; index of the JPEG files: {speed:,.0f} a second")
        for name, source, batch_size, steps in (
            ("shapes, 32 px", shapes, 64, 400),
            (f"JPEG files of 512 px, {size:.0f} KB, in tar files", jpegs, 16, 60),
        ):
            speeds = {reader: [] for reader in READERS}
            for _ in range(REPEATS):
                for reader in READERS:
                    speeds[reader].append(pictures_a_second(source, batch_size, steps, reader))
            for reader in READERS:
                fastest, slowest = max(speeds[reader]), min(speeds[reader])
                middle = statistics.median(speeds[reader])
                print(f"{name}, {reader}: {middle:,.0f} ({slowest:,.0f} to {fastest:,.0f})")


if __name__ == "__main__":
    main()
