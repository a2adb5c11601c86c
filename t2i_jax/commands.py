"""What each command does, given its parsed arguments and the config overrides.

What imports JAX or TensorFlow is imported where it is used, so that a mistake in a config or an
argument is told at once.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

from t2i_jax import config as configs
from t2i_jax.core.files import atomic_path, check_folder
from t2i_jax.preparing import prepare as prepare
from t2i_jax.restyling import dream as dream
from t2i_jax.restyling import stylize as stylize
from t2i_jax.runs import stored_vectors
from t2i_jax.text.prompt_file import read_prompts

WRITE_ARRAYS = ("encode", "embed_image", "embed_text")  # --out is a file, not a folder
MAX_PICTURES = 100_000  # of one call, which holds them all in memory
# What a user can mend: shown as one line. Anything else is a bug and shows its trace.
UserError = (ValueError, OSError, RuntimeError)


def config(args, overrides) -> None:
    """List every field of a config, its value and its meaning, or the project's own configs."""
    if overrides and not args.config:
        raise ValueError("--config.KEY=VALUE changes a config: name it with --config")
    print(configs.listing(args.config, overrides) if args.config else configs.names())


def train(args, overrides) -> None:
    """Train, then score on `test`."""
    began = time.monotonic()
    chosen = configs.load(args.config, overrides)
    from t2i_jax.core import hosts

    hosts.start(args.coordinator, args.processes, args.process_id)
    if not hosts.is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the end)
    from t2i_jax.core.compile_cache import keep_compiled_programs
    from t2i_jax.evaluation.during_training import EVALUATORS
    from t2i_jax.evaluation.evaluate import evaluate as score
    from t2i_jax.evaluation.evaluate import summary
    from t2i_jax.training import loop

    keep_compiled_programs()
    if args.compile_only:
        from t2i_jax.evaluation.step_needs import describe_step

        print(describe_step(chosen))
        return
    pipe = loop.train(chosen, args.workdir, EVALUATORS)
    if hosts.is_first():
        report = score(pipe, args.workdir)
        print(summary(report, args.workdir))
        print(f"{(time.monotonic() - began) / 60:.1f} minutes in all")
    hosts.wait("scored")


def sweep(args, overrides) -> None:
    """Train a config many times, to find good settings."""
    try:
        from t2i_jax.evaluation.sweep import sweep as search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise RuntimeError("sweep needs optuna: pip install 't2i_jax[sweep]'") from error
    from t2i_jax.core.compile_cache import keep_compiled_programs

    keep_compiled_programs()
    report = search(args.config, args.sweep, args.workdir, args.trials, overrides)
    print(f"{report}: all trials, the best first")


def convert(args, overrides) -> None:
    """Make a run of a published model, or the reverse."""
    from t2i_jax.runs.converted import convert_in, convert_out

    if overrides:
        raise ValueError("convert changes no setting: leave out --config")
    if args.origin:
        if "--checkpoint" in args.given:
            raise ValueError("--checkpoint is of a run that is written with --to")
        convert_in(args.origin, args.workdir)
        print(f"{args.workdir}: a run with the weights of {args.origin}")
    else:
        convert_out(args.workdir, args.checkpoint, args.to)
        print(f"{args.to}: the weights of {args.workdir}")


def export(args, overrides) -> None:
    """Write a run without its training to a folder, to share it."""
    if args.format == "stablehlo":
        from t2i_jax.runs.stablehlo import export_sampler

        how = (args.batch, args.platforms.split(","), overrides)
        folder = export_sampler(args.workdir, args.checkpoint, args.to, *how)
        print(f"{folder}: {_mebibytes(folder)}; its README.md says how to draw with JAX alone")
        return
    if unused := {"--batch", "--platforms"} & args.given:
        raise ValueError(f"{min(unused)} is of a sampler: it needs --format=stablehlo")
    if overrides:
        raise ValueError("export changes no setting of a run: leave out --config")
    from t2i_jax.runs.run_folder import export as write

    folder = write(args.workdir, args.checkpoint, args.to)
    print(f"{folder}: {_mebibytes(folder)}; t2i_jax.load and all commands take it as a run")


def compress(args, overrides) -> None:
    """Write a run with its weights in fewer bits."""
    from t2i_jax.runs.compressed import compress as write

    if overrides:
        raise ValueError("compress changes no setting: leave out --config")
    folder, share = write(args.workdir, args.checkpoint, args.to, args.out)
    print(f"{folder}: {_mebibytes(folder)}; its weights take {share:.3f} of those of the run")


def _mebibytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 2**20:,.1f} MiB"


def sample(args, overrides) -> None:
    """Draw pictures, or one picture again."""
    num, seed = (4 if args.num is None else args.num), args.seed or 0
    if args.origin:
        if args.num is not None or args.seed is not None or any("sample." in o for o in overrides):
            raise ValueError(
                "--from draws a picture with its own seed and settings: leave out --num, --seed "
                "and --config.sample"
            )
        if args.explain:
            raise ValueError("--explain is of --prompt; for a picture that is there, use `explain`")
        if args.expand:
            raise ValueError("--expand is of --prompt: a picture is drawn again by what it says")
        _redraw(_load(args, overrides), Path(os.path.abspath(args.origin)), Path(args.out))
        return
    prompts = args.prompt or read_prompts(args.prompts)
    if len(prompts) * num > MAX_PICTURES:
        raise ValueError(
            f"{len(prompts):,} prompts x --num={num} are more than {MAX_PICTURES:,} pictures, the "
            "most of one call: give fewer prompts"
        )
    how = {"num": num, "seed": seed, "explain": args.explain, "expand": args.expand}
    _save(_load(args, overrides)(prompts, **how), args.out)


def _redraw(pipe, origin: Path, out: Path) -> None:
    image, same = pipe.redraw(origin)
    path = out / f"{origin.parent.name}-{origin.stem}-again.png"
    with atomic_path(path) as part:
        image.save(part)
    if not same:
        raise ValueError(f"{path}: NOT the same pixels (another machine or version?)")
    print(f"{path}: the same, bit for bit")


def generate_dataset(args, overrides) -> None:
    """Draw a folder of captioned pictures."""
    from t2i_jax.runs.generated import generate_dataset as generate

    prompts = args.prompt or read_prompts(args.prompts)
    made = generate(_load(args, overrides), prompts, args.num, args.seed, args.out)
    kept = made["drawn"] - made["left_out"]
    print(
        f"{args.out}: {kept:,} pictures; the source folder reads it: --config.data.path={args.out}"
    )


def edit(args, overrides) -> None:
    """Redraw pictures."""
    _save(_load(args, overrides).edit(args.prompt, args.image, args.num, args.seed), args.out)


def vary(args, overrides) -> None:
    """Draw pictures anew, from their embeddings."""
    _save(_load(args, overrides).vary(args.image, args.num, args.seed), args.out)


def inpaint(args, overrides) -> None:
    """Draw a part of pictures anew."""
    pipe = _load(args, overrides)
    _save(pipe.inpaint(args.prompt, args.image, args.mask, args.num, args.seed), args.out)


def outpaint(args, overrides) -> None:
    """Draw margins around pictures."""
    margins = {side: getattr(args, side) for side in ("top", "bottom", "left", "right")}
    pipe = _load(args, overrides)
    _save(pipe.outpaint(args.prompt, args.image, **margins, num=args.num, seed=args.seed), args.out)


def caption(args, overrides) -> None:
    """Describe pictures in words."""
    said = _load(args, overrides).caption(args.image, num=args.num, seed=args.seed)
    for i, text in enumerate(said):
        print(f"{args.image[i // args.num]}: {text}")


def imagine(args, overrides) -> None:
    """Draw pictures of nothing given, and caption them."""
    _save(_load(args, overrides).imagine(args.num, args.seed), args.out)


def reconstruct(args, overrides) -> None:
    """Encode pictures and decode them again."""
    images = _load(args, overrides).reconstruct(args.image, args.prompt)
    _save_all(images, args.image, args.out)


def upscale(args, overrides) -> None:
    """Enlarge pictures."""
    _save_all(_load(args, overrides).upscale(args.image, args.seed), args.image, args.out)


def translate(args, overrides) -> None:
    """Translate pictures."""
    _save_all(_load(args, overrides).translate(args.image), args.image, args.out)


def explain(args, overrides) -> None:
    """Show which part of each picture belongs to which word of its caption."""
    found = _load(args, overrides).explain(args.image, args.prompt)
    _save_all([each.overlay() for each in found], [args.prompt] * len(found), args.out)


def interpolate(args, overrides) -> None:
    """Draw the way from one picture to another."""
    first, last = args.image
    images = _load(args, overrides).interpolate(first, last, args.seed, steps=args.num)
    _save_all(images, [f"{first} to {last}"] * len(images), args.out)


def encode(args, overrides) -> None:
    """Write the codes or latents of pictures to a .npy file."""
    _save_array(args, lambda: _load(args, overrides).encode(args.image))


def embed_image(args, overrides) -> None:
    """Write the vectors of pictures to a .npy file, or to a .npz file that can be searched."""
    if not args.out.endswith(".npz"):
        return _save_array(args, lambda: _load(args, overrides).embed_image(args.image))
    check_folder(Path(args.out).parent)
    print(stored_vectors.store(_load(args, overrides), args.image, args.out))


def embed_text(args, overrides) -> None:
    """Write the vectors of captions to a .npy file, or find the pictures nearest to them."""
    if not args.search:
        return _save_array(args, lambda: _load(args, overrides).embed_text(args.prompt))
    print(*stored_vectors.search(_load(args, overrides), args.prompt, args.search), sep="\n")


def _save_array(args, compute) -> None:
    """Write the array that `compute` returns to the file --out, which is checked before."""
    if Path(args.out).is_dir():
        raise IsADirectoryError(f"--out: {args.out} is a folder: name a file to write, X.npy")
    check_folder(Path(args.out).parent)
    array = compute()
    with atomic_path(Path(args.out)) as part, open(part, "wb") as file:
        np.save(file, array)
    print(f"{args.out}: {array.dtype} {list(array.shape)}")


def decode(args, overrides) -> None:
    """Write the pictures of codes or latents."""
    from t2i_jax.runs.encoded import read_codes

    pipe, encoded = _load(args, overrides), read_codes(args.codes)
    try:
        images = pipe.decode(encoded)
    except ValueError as error:
        raise ValueError(f"--codes: {args.codes}: {error}") from error
    _save_all(images, [args.codes] * len(images), args.out)


def evaluate(args, overrides) -> None:
    """Measure a run, or the ruler itself."""
    from t2i_jax.core.compile_cache import keep_compiled_programs
    from t2i_jax.evaluation.evaluate import evaluate as score
    from t2i_jax.evaluation.evaluate import summary, warn_of_other_data
    from t2i_jax.evaluation.truth import evaluate_truth

    if args.workdir and args.config:
        raise ValueError("evaluate takes --workdir (a run) or --config (the ruler), and not both")
    if args.workdir:
        chosen = _measures(args)
        args.checkpoint = args.checkpoint or "last"
        pipe = _load(args, overrides)
        warn_of_other_data(pipe, args.workdir)
        how = (args.split, args.num, args.seed, chosen, args.expand)
        report = score(pipe, args.workdir, *how)
        print(summary(report, args.workdir))
    elif args.config:
        if unused := {"--checkpoint", "--expand", "--measure", "--seed"} & args.given:
            raise ValueError(f"{min(unused)} is of a run: it needs --workdir in place of --config")
        keep_compiled_programs()
        print(evaluate_truth(configs.load(args.config, overrides), args.split, args.num))
    else:
        raise ValueError(
            "evaluate needs --workdir=RUN (score a run) or --config=FILE.py (score the parser on "
            "true pictures)"
        )


def compare(args, overrides) -> None:
    """Measure runs and configs alike, in one report."""
    from t2i_jax.core.compile_cache import keep_compiled_programs
    from t2i_jax.evaluation.compare import compare as measure_all

    keep_compiled_programs()
    budget = (args.minutes, args.pictures)
    how = (args.split, args.num, args.seed, overrides, _measures(args))
    print(measure_all(args.subjects, args.out, *budget, *how))


def benchmark(args, overrides) -> None:
    """Measure the rows of the benchmark, ours against PyTorch."""
    if overrides:
        raise ValueError("benchmark changes no setting: leave out --config")
    from t2i_jax.benchmark.run import benchmark as measure_rows

    print(measure_rows(args.what, args.out, args.quick))


def serve(args, overrides) -> None:
    """Serve a page to draw on."""
    try:
        from t2i_jax.serve.app import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("gradio", "fastapi", "uvicorn"):
            raise
        raise RuntimeError(f"serve needs {error.name}: pip install 't2i_jax[ui]'") from error
    run(args.workdir, args.checkpoint, overrides, args.host, args.port, args.password or "")


def _load(args, overrides):
    from t2i_jax import pipeline

    if "out" in args and args.command not in WRITE_ARRAYS:
        check_folder(args.out)  # before anything is drawn for it

    return pipeline.load(args.workdir, args.checkpoint, overrides)


def _save_all(images, titles, folder) -> None:
    from t2i_jax.runs.drawn import Drawn

    _save(Drawn(images, titles), folder)


def _save(drawn, folder) -> None:
    for path, prompt in zip(drawn.save(folder), drawn.prompts, strict=True):
        print(f"{path}  {prompt}")


def _measures(args) -> tuple[str, ...]:
    """The measures asked for, or all. ValueError, naming those there are, for an unknown name."""
    from t2i_jax.evaluation.measure import check_names, load_measures

    asked = tuple(load_measures() if args.measure is None else args.measure.split(","))
    check_names(asked)  # before anything is trained for them
    return asked
