"""t2i_jax: prepare data, train, use, evaluate and compare text-to-image models.

  python main.py config   --config=configs/shapes.py            # every field, and the variants
  python main.py train    --config=configs/shapes.py --workdir=runs/shapes
  python main.py sample   --workdir=runs/shapes --prompt="a large red circle" --num=4 --seed=0
  python main.py sample   --workdir=runs/shapes --from=samples/000.png
  python main.py inpaint  --workdir=runs/shapes_masked --image=X.png --mask=M.png --prompt="..."
  python main.py caption  --workdir=runs/shapes_captioner --image=X.png --image=Y.png
  python main.py evaluate --workdir=runs/shapes --split=test
  python main.py evaluate --config=configs/shapes.py
  python main.py compare  runs/shapes runs/shapes_diffusion --out=comparison
  python main.py compare  configs/shapes.py configs/shapes_diffusion.py --minutes=3
  python main.py prepare  --data=emoji
  python main.py prepare  --weights=efficientnet_lite0

Any field of a config can be set: --config.optim.learning_rate=0.002
"""

import argparse
import importlib.util
import os
import sys
import warnings

# Keep memory instead of returning it to the kernel, use huge pages, and one arena.
ALLOCATOR = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:"
    "glibc.malloc.arena_max=1"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser. `--config.a.b=value` is left over for `config.load`."""
    top = argparse.ArgumentParser(
        prog="main.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, help):
        return commands.add_parser(name, help=help, description=help, allow_abbrev=False)

    add_training(command)
    add_abilities(command)
    add_measuring(command)
    return top


def add_training(command) -> None:
    """Add the commands up to a trained run."""
    sub = command("config", "list every field of a config, its value and its meaning")
    sub.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]")
    sub = command("prepare", "fetch and prepare a data set, or published weights")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="the source: shapes, emoji, folder, fashion_mnist, tfds")
    what.add_argument(
        "--weights", help="efficientnet_lite0 (for evaluate) or minilm (a text encoder)"
    )
    sub.add_argument("--archives", help="a folder of archives fetched by other means")
    sub.add_argument("--resolution", type=int, default=32, help="side of the pictures in pixels")
    sub = command("train", "train a model, or go on with the run in --workdir; ends with a score")
    sub.add_argument("--workdir", required=True, help="the run's folder: all that a run writes")
    help = "the experiment, such as configs/shapes.py"
    sub.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help=help)
    help = "of several processes (docs/scaling.md): the address of the first"
    sub.add_argument("--coordinator", metavar="HOST:PORT", help=help)
    sub.add_argument("--processes", type=int, help="how many there are")
    sub.add_argument("--process_id", type=int, help="which of them this is, from 0")


def add_abilities(command) -> None:
    """Add one command for each ability of a trained run."""
    sub = command("sample", "draw pictures from prompts")
    add_run(sub, num="pictures a prompt (4)", default=None, out="samples")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", action="append", help="what to draw; may be given several times")
    what.add_argument("--prompts", metavar="FILE", help="a text file with a prompt a line")
    help = "draw this picture again, from its metadata"
    what.add_argument("--from", dest="origin", metavar="IMAGE.png", help=help)
    sub = command("inpaint", "draw the masked part of pictures anew, to fit a prompt")
    add_run(sub, num="results a picture (1)", default=1, out="samples")
    add_images(sub)
    help = "white where to draw; one for all, or one for each"
    sub.add_argument("--mask", action="append", required=True, metavar="M.png", help=help)
    sub.add_argument("--prompt", default="", help="what the whole picture shows")
    sub = command("caption", "describe pictures in words")
    add_run(sub, num="captions a picture (1)", default=1)
    add_images(sub)
    sub = command("reconstruct", "encode pictures and decode them again")
    add_run(sub, out="samples")
    add_images(sub)
    sub.add_argument("--prompt", default="", help="of a conditional model: what the pictures show")
    sub = command("interpolate", "draw the way from one picture to another")
    add_run(sub, out="samples")
    help = "the first and the last picture"
    sub.add_argument("--image", nargs=2, required=True, metavar="X.png", help=help)
    sub.add_argument(
        "--num", type=int, default=8, help="pictures on the way, both ends included (8)"
    )
    sub = command("encode", "write the codes or latents of pictures to a .npy file")
    add_run(sub)
    add_images(sub)
    sub.add_argument("--out", default="codes.npy", help="the file to write (codes.npy)")
    sub = command("decode", "write the pictures of codes or latents")
    add_run(sub, out="samples")
    sub.add_argument("--codes", required=True, metavar="X.npy", help="a file of the command encode")


def add_measuring(command) -> None:
    """Add the commands that measure."""
    evaluate = command("evaluate", "measure a run; without --workdir, the ruler itself")
    evaluate.add_argument("--workdir", help="the run's folder")
    help = "whose true pictures to measure the ruler on"
    evaluate.add_argument("--config", metavar="FILE.py[:VARIANT]", help=help)
    evaluate.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    compare = command("compare", "measure runs, or configs trained under one budget, in one report")
    help = "run folders and configs"
    compare.add_argument("subjects", nargs="+", metavar="RUN|FILE.py[:VARIANT]", help=help)
    budget = compare.add_mutually_exclusive_group()
    help = "minutes of training steps for each config"
    budget.add_argument("--minutes", type=float, default=0.0, help=help)
    help = "pictures seen in training for each config"
    budget.add_argument("--pictures", type=int, default=0, help=help)
    help = "folder of the report, which resumes there (comparison)"
    compare.add_argument("--out", default="comparison", help=help)
    for scored in (evaluate, compare):
        help = "some of the measures, with commas between (all): alignment,fidelity,cost,..."
        scored.add_argument("--measure", help=help)
        scored.add_argument("--split", default="test", help="test, validation, ... (test)")
        scored.add_argument("--num", type=int, default=0, help="captions (config.evaluate.num)")
        scored.add_argument("--seed", type=int, default=0, help="same seed, same pictures (0)")


def add_run(sub, num: str = "", default: int | None = 1, out: str = "") -> None:
    """Add the arguments of a command that uses a run."""
    sub.add_argument("--workdir", required=True, help="the run's folder")
    sub.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    if num:
        sub.add_argument("--num", type=int, default=default, help=num)
        seed = None if default is None else 0
        sub.add_argument("--seed", type=int, default=seed, help="same seed, same result (0)")
    if out:
        sub.add_argument("--out", default=out, help=f"folder for the pictures ({out})")


def add_images(sub) -> None:
    """Add the pictures that a command takes."""
    help = "a picture; may be given several times"
    sub.add_argument("--image", action="append", required=True, metavar="X.png", help=help)


def main(argv: list[str]) -> None:
    """Run one command. Errors that a user can mend are printed as one line."""
    args, rest = parser().parse_known_args(argv)
    overrides = [arg.removeprefix("--config.") for arg in rest if arg.startswith("--config.")]
    if len(overrides) < len(rest):
        unknown = next(arg for arg in rest if not arg.startswith("--config."))
        parser().error(f"unknown argument {unknown!r}; see --help")
    refuse_empty(args)
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        from t2i_jax import commands  # once the arguments are checked: JAX takes a second to import

        try:
            getattr(commands, args.command)(args, overrides)
        except commands.UserError as error:
            if (
                type(error).__name__ == "JaxRuntimeError"
            ):  # a bug or a lack of memory, not a mistake
                raise
            sys.exit(f"{args.command}: {one_line(error)}")
    except KeyboardInterrupt:
        print(f"\n{args.command}: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    finally:
        warnings.formatwarning = before


def refuse_empty(args: argparse.Namespace) -> None:
    """Exit with a message if an argument that names something is empty; a prompt may be."""
    for name, value in vars(args).items():
        if name != "prompt" and "" in (value if isinstance(value, list) else (value,)):
            option = {"origin": "--from", "subjects": "RUN"}.get(name, f"--{name}")
            sys.exit(f"{args.command}: {option} is empty: give it a value, or leave it out")


def one_line(error: BaseException) -> str:
    """Return the message of an error; of a file's error, what is wrong and which file."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def run() -> None:
    """Run the command line: the entry of `python main.py` and of the console script `t2i-jax`.

    Where JAX runs on the CPU, the process starts itself again with an allocator that keeps its
    memory: XLA's buffers are otherwise returned to the kernel at every step.
    """
    if "GLIBC_TUNABLES" not in os.environ and sys.platform == "linux" and runs_on_cpu():
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    main(sys.argv[1:])


def runs_on_cpu() -> bool:
    """Return whether JAX will run on the CPU, as far as can be told without importing it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    accelerators = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    return not any(importlib.util.find_spec(name) for name in accelerators)


if __name__ == "__main__":
    run()
