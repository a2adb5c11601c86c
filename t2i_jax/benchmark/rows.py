"""The rows of the benchmark: what is compared with what, and the goal."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from t2i_jax.benchmark import experiments
from t2i_jax.core.registry import did_you_mean

# Sides of a comparison with PyTorch: {name: "module:argument"}, ours first.
TRAINING = {
    "ours": "ours.train:resident",
    "torch": "twins.train:eager",
    "torch.compile": "twins.train:compiled",
}
FORWARD = {
    "ours": "ours.forward:call",
    "torch": "twins.forward:eager",
    "torch.compile": "twins.forward:compiled",
}
HALF_OF_FLOPS = 0.0  # a goal


class Row(NamedTuple):
    """A row.

    title: what is measured, in the table.
    config: () -> the config of what is measured.
    goal: of the ratio. In a row with a twin, the speed of ours over that of torch.compile, at
        least. In a row of ours alone, the time of the first side over that of the second, at most;
        HALF_OF_FLOPS stands for twice the ratio of their FLOPs.
    twin: the file of twins/ with the same network in PyTorch; "" for a row of ours alone.
    sides: {name: "module:argument"}: modules of this package with `prepare(row, folder, argument)
        -> side.Side`. They are prepared in this order, and share the folder. The first is ours.
    quick: whether `--quick` measures it.
    steps: how many are measured in a round; 0 for as many as usual.
    """

    title: str
    config: Callable[[], Any]
    goal: float
    twin: str = ""
    sides: Mapping[str, str] = TRAINING
    quick: bool = False
    steps: int = 0


SMALL_DIT = partial(experiments.dit, 32, patch=4, width=128, depth=6, heads=4)
SMALL_DECODER = partial(experiments.codes, "autoregressive", 32, width=128, depth=4, heads=4)

ROWS: dict[str, Row] = {
    "dit_small": Row(
        "train step of a DiT, width 128, depth 6, patch 4, batch 32",
        SMALL_DIT,
        goal=1.0,
        twin="dit",
        quick=True,
    ),
    "dit_s4": Row(
        "train step of DiT-S/4, batch 16",
        partial(experiments.dit, 16, variant="S/4"),
        goal=1.0,
        twin="dit",
    ),
    "dit_s2": Row(
        "train step of DiT-S/2, batch 4",
        partial(experiments.dit, 4, variant="S/2"),
        goal=1.0,
        twin="dit",
    ),
    "autoregressive": Row(
        "train step of an autoregressive transformer, width 128, depth 4, batch 32",
        SMALL_DECODER,
        goal=0.7,
        twin="autoregressive",
    ),
    "unet": Row(
        "train step of the U-Net S, 32 px, batch 16",
        partial(experiments.unet, 16, variant="S"),
        goal=0.9,
        twin="unet",
    ),
    "vqgan": Row(
        "train step of VQGAN's autoencoder, KL, without the discriminator, 64 px, batch 8",
        partial(experiments.autoencoder, 8, 64, width=32, multipliers=(1, 2, 4)),
        goal=0.9,
        twin="vqgan",
    ),
    "masked": Row(
        "train step of a masked transformer, width 128, depth 4, batch 32",
        partial(experiments.codes, "masked", 32, width=128, depth=4, heads=4),
        goal=0.7,
        twin="masked",
    ),
    "dcgan": Row(
        "train step of a DCGAN, both players, width 64, 32 px, batch 32",
        partial(experiments.dcgan, 32, width=64, levels=3),
        goal=0.7,
        twin="dcgan",
    ),
    "sd_unet": Row(
        "one call of the U-Net of Stable Diffusion 1, 512 px, batch 1",
        partial(experiments.published_unet, 64, variant="SD1"),
        goal=0.9,
        twin="diffusers_unet",
        sides=FORWARD,
        steps=1,
    ),
    "sdxl_middle": Row(
        "one call of the ten transformer blocks in the middle of Stable Diffusion XL, 1024 px, "
        "batch 1",
        partial(experiments.published_unet, 32, part="mid_block.attentions.0", variant="SDXL"),
        goal=0.9,
        twin="diffusers_unet",
        sides=FORWARD,
        steps=1,
    ),
    "sampling": Row(
        "drawing 8 pictures by diffusion in 20 steps, over 20 calls of the network",
        partial(experiments.drawn, SMALL_DIT, 8, sampler="dpmpp_2m", steps=20),
        goal=1.05,
        sides={"sampling": "ours.sample:whole", "calls": "ours.sample:calls"},
        quick=True,
    ),
    "decoding": Row(
        "drawing 8 pictures token by token, over the same without cached keys and values",
        partial(experiments.drawn, SMALL_DECODER, 8, guidance=1.25),
        goal=HALF_OF_FLOPS,
        sides={"cached": "ours.sample:whole", "uncached": "ours.sample:uncached"},
    ),
    "start": Row(
        "from starting Python to the first train step of `dit_small`, programs compiled before "
        "over none compiled",
        SMALL_DIT,
        goal=0.25,
        sides={"warm": "ours.start:warm", "cold": "ours.start:cold"},
        steps=1,
    ),
    "pipeline": Row(
        "train step of `dit_small` with batches of the pipeline, over the same with one batch",
        SMALL_DIT,
        goal=1.1,
        sides={"pipeline": "ours.train:pipeline", "resident": "ours.train:resident"},
        quick=True,
    ),
    "loader": Row(
        "reading a batch of 32, over a train step of `dit_small`",
        SMALL_DIT,
        goal=0.1,
        sides={"loader": "ours.train:loader", "step": "ours.train:resident"},
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
