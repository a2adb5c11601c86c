"""The rows of the benchmark: what is compared with what, and the goal."""

import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from t2i_jax.benchmark import experiments
from t2i_jax.core.registry import did_you_mean

# Sides of a comparison with PyTorch: {name: "module:argument"}, ours first.
TRAINING = {
    "ours": "ours.train:",
    "torch": "twins.train:eager",
    "torch.compile": "twins.train:compiled",
}


class Row(NamedTuple):
    """A row.

    title: what is measured, in the table.
    config: () -> the config of what is measured.
    sides: {name: "module:argument"}: modules of this package with `prepare(row, folder, argument)
        -> side.Side`. They are prepared in this order, and share the folder. The first is ours.
    twin: the file of twins/ with the same network in PyTorch; "" for a row of ours alone.
    goal: of the ratio: the speed of ours over that of torch.compile, at least; in a row of ours
        alone the time of the first side over that of the second, at most.
    quick: whether `--quick` measures it.
    steps: how many are measured in a round; 0 for as many as usual.
    packages: what else must be installed; the row is left out where it is not.
    """

    title: str
    config: Callable[[], Any]
    goal: float
    twin: str = ""
    sides: Mapping[str, str] = TRAINING
    quick: bool = False
    steps: int = 0
    packages: tuple[str, ...] = ()


_dit = functools.partial(functools.partial, experiments.dit)
_codes = functools.partial(functools.partial, experiments.codes)

ROWS: dict[str, Row] = {
    "dit_small": Row(
        "DiT, width 128, depth 6, patch 4, batch 32: train step",
        _dit(32, patch=4, width=128, depth=6, heads=4),
        goal=1.0,
        twin="dit",
        quick=True,
    ),
    "dit_s4": Row("DiT-S/4, batch 16: train step", _dit(16, variant="S/4"), goal=1.0, twin="dit"),
    "dit_s2": Row("DiT-S/2, batch 4: train step", _dit(4, variant="S/2"), goal=1.0, twin="dit"),
    "autoregressive": Row(
        "autoregressive transformer, width 128, depth 4, batch 32: train step",
        _codes("autoregressive", 32, width=128, depth=4, heads=4),
        goal=0.7,
        twin="autoregressive",
    ),
    "unet": Row(
        "U-Net S, 32 px, batch 16: train step",
        functools.partial(experiments.unet, 16, variant="S"),
        goal=0.9,
        twin="unet",
    ),
    "vqgan": Row(
        "VQGAN's autoencoder, KL, 64 px, batch 8, without the discriminator: train step",
        functools.partial(experiments.autoencoder, 8, 64, width=32, multipliers=(1, 2, 4)),
        goal=0.9,
        twin="vqgan",
    ),
    "masked": Row(
        "masked transformer, width 128, depth 4, batch 32: train step",
        _codes("masked", 32, width=128, depth=4, heads=4),
        goal=0.7,
        twin="masked",
    ),
}


def chosen(what: str, quick: bool) -> list[str]:
    """Return the names of the rows to measure.

    what: names with commas between; "" for all, or with `quick` for the quick ones.
    Raises ValueError, listing the rows, for an unknown name.
    """
    if not what:
        return [name for name, row in ROWS.items() if row.quick or not quick]
    names = what.split(",")
    for name in names:
        if name not in ROWS:
            raise ValueError(
                f"--what: there is no row {name!r}: there are {', '.join(ROWS)}"
                f"{did_you_mean(name, ROWS)}"
            )
    return list(dict.fromkeys(names))


def find_side(row: Row, name: str) -> Callable[[Path], Any]:
    """Return (folder) -> side.Side of a side of `row`."""
    module, _, argument = row.sides[name].partition(":")
    prepare = importlib.import_module(f"t2i_jax.benchmark.{module}").prepare
    return lambda folder: prepare(row, folder, argument)
