"""A run whose weights are stored in 8 or 4 bits: an exported run (runs/exported.py) in small files.

The weights are widened to float32 when they are read, so the files are small, and the model in
memory is as large and as fast as before. Widening inside the compiled program was tried on large
U-Nets: on CPU, XLA then kept all widened matrices at once.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from t2i_jax.families.load import load_family
from t2i_jax.runs.exported import WEIGHTS, write_exported
from t2i_jax.runs.frozen import load_frozen
from t2i_jax.runs.model_card import NAME as CARD
from t2i_jax.runs.model_card import write_card
from t2i_jax.runs.run_folder import config_of, locate, read_ema, read_run, read_tokenizer
from t2i_jax.weights.quantized import quantize_tree


def compress(workdir, which: str | int, kind: str, target) -> tuple[Path, float]:
    """Write a run to the folder `target`, with its weights in fewer bits.

    The averaged weights and the networks among the frozen parts are quantised. Published weights
    that a run only names are not in its folder, and stay as they are.
    kind: of `quantized.KINDS`.
    Returns the folder, and the size of its files of weights over that of an exported run.
    Raises ValueError for another kind and for a run that was quantised already, and as
    `run_folder.export` does.
    """
    run, folder = read_run(workdir), locate(workdir)
    if before := run.get("quantized"):
        raise ValueError(
            f"{workdir} was quantised to {before} already, which lost what is beyond that: "
            "compress the run that it was made of"
        )
    ema, step = read_ema(workdir, which)
    frozen = load_frozen(folder, run["frozen"])
    read_tokenizer(workdir, run)  # raises if it is not the run's
    small = {**ema, "params": quantize_tree(ema["params"], kind)}, quantize_tree(frozen, kind)
    written = write_exported({**run, "quantized": kind}, *small, step, folder, target)
    # The scores on the card of the run are not those of these weights.
    (written / CARD).unlink(missing_ok=True)
    config = config_of(run)
    write_card(written, config, load_family(config).abilities)
    size = sum(path.stat().st_size for path in _weights_of(written))
    return written, size / sum(_bytes(tree) for tree in (ema, frozen))


def _weights_of(folder: Path) -> list[Path]:
    return [folder / WEIGHTS, *(folder / "frozen").iterdir()]


def _bytes(tree: Any) -> int:
    return sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))
