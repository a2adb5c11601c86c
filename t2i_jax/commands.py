"""What each command of main.py does, given its arguments and the config overrides."""

import importlib
import os
import sys
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.by_name import make_of
from t2i_jax.data.source import data_dir

# What a user can mend: shown as one line. Anything else is a bug and shows its trace.
UserError = (ValueError, FileNotFoundError, RuntimeError)


def prepare(args, overrides) -> None:
    """Fetch and prepare a data set, or published weights."""
    if args.weights:
        _fetcher(args.weights)(args.archives)
        print(f"{args.weights}: ready in {data_dir()}")
        return
    config = ConfigDict({"data": {"name": args.data, "resolution": args.resolution, "path": "", "dataset": ""}})
    configs.override(config, overrides)
    config = config.data
    make = make_of("data", args.data)
    fetch = getattr(sys.modules[make.__module__], "prepare", None)
    if fetch:
        fetch(config, args.archives)
    source = make(config, "train")
    print(f"{args.data}: {len(source.captions):,} training pictures of {args.resolution} px, in {data_dir()}")


def train(args, overrides) -> None:
    """Train, then score on `test`."""
    from t2i_jax import train as training  # these two import the input pipeline
    from t2i_jax.evaluate import evaluate as score
    from t2i_jax.evaluate import summary

    _compile_cache()
    began = time.monotonic()
    pipe = training.train(configs.load(args.config, overrides), args.workdir)
    report = score(pipe, args.workdir)
    print(f"{summary(report, args.workdir)}\n{(time.monotonic() - began) / 60:.1f} minutes in all")


def sample(args, overrides) -> None:
    """Draw pictures, or one picture again."""
    _compile_cache()
    pipe = pipeline.load(args.workdir, args.checkpoint, overrides)
    out = Path(args.out)
    if args.origin:
        image, same = pipe.redraw(args.origin)
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{Path(args.origin).stem}-again.png"
        pipeline.save_png(image, path)
        print(f"{path}: {'the same, bit for bit' if same else 'NOT the same pixels (another machine or version?)'}")
        return
    prompts = args.prompt or Path(args.prompts).read_text(encoding="utf-8").splitlines()
    drawn = pipe(prompts, num=args.num, seed=args.seed)
    for path, prompt in zip(drawn.save(out), drawn.prompts, strict=True):
        print(f"{path}  {prompt}")


def caption(args, overrides) -> None:
    """Say what is in pictures."""
    _compile_cache()
    pipe = pipeline.load(args.workdir, args.checkpoint, overrides)
    said = pipe.caption(args.image, num=args.num, seed=args.seed)
    for i, text in enumerate(said):
        print(f"{args.image[i // args.num]}: {text}")


def evaluate(args, overrides) -> None:
    """Measure a run, or the ruler itself."""
    from t2i_jax.evaluate import evaluate as score
    from t2i_jax.evaluate import evaluate_truth, summary

    _compile_cache()
    if args.workdir:
        pipe = pipeline.load(args.workdir, args.checkpoint, overrides)
        print(summary(score(pipe, args.workdir, args.split, args.num, args.seed, _measures(args)), args.workdir))
    elif args.config:
        print(evaluate_truth(configs.load(args.config, overrides), args.split, args.num))
    else:
        raise ValueError("evaluate needs --workdir=RUN (score a run) or --config=FILE.py (score the parser on true pictures)")


def compare(args, overrides) -> None:
    """Measure runs and configs alike, in one report."""
    from t2i_jax.compare import compare as measure_all

    _compile_cache()
    budget = (args.minutes, args.pictures)
    print(measure_all(args.subjects, args.out, *budget, args.split, args.num, args.seed, overrides, _measures(args)))


def _measures(args) -> tuple[str, ...]:
    """Those asked for, or all. ValueError, naming those there are, for another name."""
    from t2i_jax.measures import MEASURES, check

    asked = tuple(args.measure.split(",")) if args.measure else tuple(MEASURES)
    check(asked)  # before anything is trained for them
    return asked


def _fetcher(name: str):
    """The `prepare` of t2i_jax/features/NAME.py or t2i_jax/text/NAME.py. ValueError, naming those there are."""
    root = Path(__file__).parent
    files = [f for folder in ("features", "text") for f in sorted((root / folder).glob("*.py"))]
    found = {f.stem: f.parent.name for f in files if "\ndef prepare(" in f.read_text(encoding="utf-8")}
    if name not in found:
        raise ValueError(f"there are no weights {name!r} to fetch: there are {', '.join(found)}")
    return importlib.import_module(f"t2i_jax.{found[name]}.{name}").prepare


def _compile_cache() -> None:
    """Keep compiled programs between runs."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(data_dir() / "compiled"))
