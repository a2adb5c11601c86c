"""The arguments of each command.

`DESCRIPTION` is what `main.py --help` begins with.
"""

import argparse

from t2i_jax import restyling
from t2i_jax.core.arguments import MAX_NUM, MAX_SEED
from t2i_jax.core.command_line import Parser, filled, minutes, whole

OUR_MODEL = "shapes"  # of t2i_jax/published/: what is used where no run is named
DESCRIPTION = """t2i_jax: prepare data, train, use, evaluate and compare text-to-image models.

  python main.py config   --config=configs/shapes.py            # every field, and the variants
  python main.py train    --config=configs/shapes.py --workdir=runs/shapes
  python main.py sweep    --config=configs/shapes.py --sweep=configs/sweeps/shapes.py --workdir=S
  python main.py sample   --workdir=runs/shapes --prompt="a large red circle" --num=4 --seed=0
  python main.py inpaint  --workdir=runs/shapes_masked --image=X.png --mask=M.png --prompt="..."
  python main.py caption  --workdir=runs/shapes_captioner --image=X.png --image=Y.png
  python main.py upscale  --workdir=esrgan_slim_x2 --image=X.png
  python main.py evaluate --workdir=runs/shapes --split=test
  python main.py compare  runs/shapes runs/shapes_diffusion --out=comparison
  python main.py benchmark --what=dit_small --out=benchmark
  python main.py convert  --from=stable-diffusion-v1-5 --workdir=runs/sd
  python main.py prepare  --data=emoji

Any field of a config can be set: --config.optim.learning_rate=0.002
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser. `--config.a.b=value` is left over for `config.load`."""
    top = Parser(
        prog="main.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(given=frozenset())
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, help):
        return commands.add_parser(name, help=help, description=help)

    add_training(command)
    add_drawing(command)
    add_transforming(command)
    restyling.add_commands(command)
    add_serving(command)
    add_measuring(command)
    return top


def add_training(command) -> None:
    """Add the commands up to a trained run."""
    sub = command("config", "list every field of a config, its value and its meaning")
    help = "a file, or the name of one of the project's own, which are listed without it"
    sub.add_argument("--config", metavar="FILE.py[:VARIANT]", help=help)
    sub = command("prepare", "fetch and prepare a data set, or published weights")
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="the source: shapes, emoji, folder, fashion_mnist, tfds")
    what.add_argument(
        "--weights",
        help="efficientnet_lite0 (for evaluate), minilm (a text encoder), clip_tokenizer, "
        "esrgan_slim (for upscale), magenta_style (for stylize), smollm2 (for --expand)",
    )
    sub.add_argument("--archives", help="a folder of archives fetched by other means")
    help = "side of the pictures in pixels (32)"
    sub.add_argument("--resolution", type=whole(1, 1024), help=help)
    sub = command("train", "train a model, or go on with a run, and score it")
    sub.add_argument("--workdir", required=True, help="the run's folder: all that a run writes")
    help = "the experiment: a file, or the name of one of the project's own, such as shapes"
    sub.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help=help)
    help = "print the FLOPs, memory and exchanges of a step, and train nothing"
    sub.add_argument("--compile_only", action="store_true", help=help)
    help = "of several processes (docs/scaling.md): the address of the first"
    sub.add_argument("--coordinator", metavar="HOST:PORT", help=help)
    sub.add_argument("--processes", type=int, help="how many there are")
    sub.add_argument("--process_id", type=int, help="which of them this is, from 0")
    sub = command("sweep", "train a config many times, to find good settings")
    sub.add_argument("--workdir", required=True, help="the sweep's folder, where it goes on")
    sub.add_argument("--config", required=True, metavar="FILE.py[:VARIANT]", help="what is trained")
    help = "what is searched (configs/sweeps/shapes.py)"
    sub.add_argument("--sweep", required=True, metavar="FILE.py", help=help)
    sub.add_argument("--trials", type=whole(1, 100_000), default=20, help="in all (20)")
    sub = command("convert", "make a run of a published Stable Diffusion, or the reverse")
    add_run(sub)
    what = sub.add_mutually_exclusive_group(required=True)
    help = "a folder with a model_index.json, or X.safetensors: make the run --workdir of it"
    what.add_argument("--from", dest="origin", metavar="FOLDER", help=help)
    help = "write the run --workdir to this folder, for diffusers, or its adapter to X.safetensors"
    what.add_argument("--to", metavar="FOLDER", help=help)
    sub = command("export", "write a run without its training to a folder, to share it")
    add_run(sub)
    sub.add_argument("--to", required=True, type=filled, metavar="FOLDER", help="may not exist yet")
    help = "run (what all commands take), or stablehlo: a sampler that needs JAX alone (run)"
    sub.add_argument("--format", default="run", choices=("run", "stablehlo"), help=help)
    help = "stablehlo: pictures that one call draws (16)"
    sub.add_argument("--batch", type=whole(1, MAX_NUM), default=16, help=help)
    help = "stablehlo: where it will run: cpu, cuda, rocm, tpu, with commas between (cpu)"
    sub.add_argument("--platforms", default="cpu", help=help)
    sub = command("compress", "write a run with its weights in fewer bits to a folder")
    add_run(sub)
    sub.add_argument("--to", required=True, metavar="KIND", help="int8 or int4")
    help = "may not exist yet"
    sub.add_argument("--out", required=True, type=filled, metavar="FOLDER", help=help)


def add_drawing(command) -> None:
    """Add the commands that draw by a trained run, and that describe pictures."""
    sub = command("sample", "draw pictures from prompts")
    add_run(sub, num="pictures a prompt (4)", default=None, out="samples", workdir=OUR_MODEL)
    what = add_prompts(sub)
    help = "draw this picture again, from its metadata"
    what.add_argument("--from", dest="origin", metavar="IMAGE.png", help=help)
    help = "also write X-words.png: where in a picture each word is (docs/word_maps.md)"
    sub.add_argument("--explain", action="store_true", help=help)
    add_expand(sub)
    sub = command("generate-dataset", "draw a folder of captioned pictures, to train on")
    add_run(sub, num="pictures a prompt (100)", default=100, out="generated", workdir=OUR_MODEL)
    add_prompts(sub)
    sub = command("edit", "redraw pictures to fit a prompt (config.edit.strength)")
    add_run(sub, num="results a picture (1)", default=1, out="samples")
    add_images(sub)
    sub.add_argument("--prompt", default="", help="what the picture shows ('')")
    sub = command("vary", "draw variations of pictures, from their embeddings")
    add_run(sub, num="results a picture (1)", default=1, out="samples")
    add_images(sub)
    sub = command("inpaint", "draw the masked part of pictures anew, to fit a prompt")
    add_run(sub, num="results a picture (1)", default=1, out="samples")
    add_images(sub)
    help = "white where to draw; one for all, or one for each"
    sub.add_argument(
        "--mask", action="append", type=filled, required=True, metavar="M.png", help=help
    )
    sub.add_argument("--prompt", default="", help="what the whole picture shows")
    sub = command("outpaint", "draw margins around pictures, to fit a prompt")
    add_run(sub, num="results a picture (1)", default=1, out="samples")
    add_images(sub)
    for side in ("top", "bottom", "left", "right"):
        help = "pixels of the result (0)"
        sub.add_argument(f"--{side}", type=whole(0, MAX_NUM), default=0, metavar="N", help=help)
    sub.add_argument("--prompt", default="", help="what the whole picture shows")
    sub = command("caption", "describe pictures in words")
    add_run(sub, num="captions a picture (1)", default=1, workdir=OUR_MODEL)
    add_images(sub)
    sub = command("imagine", "draw pictures of nothing given, with a caption for each")
    add_run(sub, num="pictures (4)", default=4, out="samples", workdir=OUR_MODEL)


def add_transforming(command) -> None:
    """Add the commands that turn pictures into other pictures, or into numbers and back."""
    sub = command("reconstruct", "encode pictures and decode them again")
    add_run(sub, out="samples")
    add_images(sub)
    sub.add_argument("--prompt", default="", help="of a conditional model: what the pictures show")
    sub = command("interpolate", "draw the way from one picture to another")
    add_run(sub, out="samples")
    help = "the first and the last picture"
    sub.add_argument("--image", nargs=2, type=filled, required=True, metavar="X.png", help=help)
    help = "pictures on the way, both ends included (8)"
    sub.add_argument("--num", type=whole(2, 1024), default=8, help=help)
    add_seed(sub)
    sub = command("upscale", "enlarge pictures of any size")
    add_run(sub, out="samples")
    add_images(sub)
    add_seed(sub)
    sub = command("translate", "translate pictures of one set to pictures of another")
    add_run(sub, out="samples")
    add_images(sub)
    sub = command("explain", "show which part of a picture belongs to which word of its caption")
    add_run(sub, out="samples", workdir=OUR_MODEL)
    add_images(sub)
    sub.add_argument("--prompt", required=True, type=filled, help="what the pictures show")
    sub = command("encode", "write the codes or latents of pictures to a .npy file")
    add_run(sub)
    add_images(sub)
    sub.add_argument("--out", default="codes.npy", help="the file to write (codes.npy)")
    sub = command("embed_image", "write vectors of pictures to a file, .npy or .npz (to search it)")
    add_run(sub)
    add_images(sub)
    sub.add_argument("--out", default="images.npy", help="the file to write (images.npy)")
    sub = command("embed_text", "write vectors of captions to a .npy file")
    add_run(sub)
    help = "a caption; may be given several times"
    sub.add_argument("--prompt", action="append", required=True, help=help)
    sub.add_argument("--out", default="texts.npy", help="the file to write (texts.npy)")
    help = "write nothing: print the nearest pictures of this file of embed_image"
    sub.add_argument("--search", type=filled, metavar="X.npz", help=help)
    sub = command("decode", "write the pictures of codes or latents")
    add_run(sub, out="samples")
    sub.add_argument("--codes", required=True, metavar="X.npy", help="a file of the command encode")


def add_serving(command) -> None:
    """Add the command that serves a model."""
    sub = command("serve", "a page to draw on in a browser, and the model over HTTP")
    add_run(sub, workdir=OUR_MODEL)
    help = "the address to listen at; by default (127.0.0.1) only this machine reaches it"
    sub.add_argument("--host", default="127.0.0.1", type=filled, help=help)
    sub.add_argument("--port", default=7860, type=whole(1, 65_535), help="(7860)")
    help = "of the page, with any user name, and the API key; none by default"
    sub.add_argument("--password", type=filled, help=help)


def add_measuring(command) -> None:
    """Add the commands that measure."""
    evaluate = command("evaluate", "measure a run; without --workdir, the ruler itself")
    evaluate.add_argument("--workdir", help="the run's folder")
    help = "whose true pictures to measure the ruler on"
    evaluate.add_argument("--config", metavar="FILE.py[:VARIANT]", help=help)
    evaluate.add_argument("--checkpoint", help="last, best or a step (last)")
    add_expand(evaluate)
    compare = command("compare", "measure runs, or configs trained under one budget")
    help = "run folders and configs"
    compare.add_argument(
        "subjects", nargs="+", type=filled, metavar="RUN|FILE.py[:VARIANT]", help=help
    )
    budget = compare.add_mutually_exclusive_group()
    help = "minutes of training steps for each config"
    budget.add_argument("--minutes", type=minutes, default=0.0, help=help)
    help = "pictures seen in training for each config"
    budget.add_argument("--pictures", type=whole(1, 10**12), default=0, help=help)
    help = "folder of the report, which resumes there (comparison)"
    compare.add_argument("--out", default="comparison", help=help)
    sub = command("benchmark", "measure training and drawing beside PyTorch, here")
    sub.add_argument(
        "--what", default="", help="rows, with commas between (all; docs/benchmarks.md)"
    )
    sub.add_argument("--out", default="benchmark", help="folder of the report (benchmark)")
    sub.add_argument("--quick", action="store_true", help="a few rows, in about three minutes")
    for scored in (evaluate, compare):
        help = "some of the measures, with commas between (all): alignment,fidelity,cost,..."
        scored.add_argument("--measure", help=help)
        scored.add_argument("--split", default="test", help="test, validation, ... (test)")
        help = "captions (config.evaluate.num)"
        scored.add_argument("--num", type=whole(1, 10**7), default=0, help=help)
        add_seed(scored)


def add_run(
    sub, num: str = "", default: int | None = 1, out: str = "", workdir: str | None = None
) -> None:
    """Add the arguments of a command that uses a run.

    num: the help of --num, and its default.   out: the default of --out.
    workdir: the run that is used if none is named.
    """
    help = f"the run's folder, or a model that comes with the project ({workdir})"
    if workdir:
        sub.add_argument("--workdir", default=workdir, help=help)
    else:
        sub.add_argument("--workdir", required=True, help="the run's folder")
    sub.add_argument("--checkpoint", default="last", help="last, best or a step (last)")
    if num:
        sub.add_argument("--num", type=whole(1, MAX_NUM), default=default, help=num)
        add_seed(sub, None if default is None else 0)
    if out:
        sub.add_argument("--out", default=out, help=f"folder for the pictures ({out})")


def add_seed(sub, default: int | None = 0) -> None:
    """Add --seed. default: None if the command has to know whether it was given."""
    help = "same seed, same result (0)"
    sub.add_argument("--seed", type=whole(0, MAX_SEED), default=default, help=help)


def add_prompts(sub):
    """Add one prompt or a file of them, and return the group, of which one is needed."""
    what = sub.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", action="append", help="what to draw; may be given several times")
    what.add_argument("--prompts", metavar="FILE", help="a text file with a prompt a line")
    return what


def add_expand(sub) -> None:
    """Add what rewrites prompts."""
    help = "rewrite prompts by a language model: local, or an endpoint's URL (docs/prompts.md)"
    sub.add_argument("--expand", nargs="?", const="local", type=filled, metavar="URL", help=help)


def add_images(sub) -> None:
    """Add the pictures that a command takes."""
    help = "a picture; may be given several times"
    sub.add_argument(
        "--image", action="append", type=filled, required=True, metavar="X.png", help=help
    )
