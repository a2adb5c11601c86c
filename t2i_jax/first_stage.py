"""Pictures as codes or latents, and back: what a second model is trained on, while the first stage is held fixed.

The first stage is either fitted to the pictures of the run itself, before its first step (a codebook of patches; for latents,
the pixels as they are), or trained before, in a run folder that `config.first_stage.run` names. Its arrays are copied into the
run that uses it, so that this run is whole by itself: they are the branch "first_stage" of its frozen tree.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from t2i_jax import config as configs
from t2i_jax.by_name import having, make_of
from t2i_jax.checkpoint import last_whole
from t2i_jax.families.family import Context, Variables
from t2i_jax.models import patch_codebook
from t2i_jax.models.layers import from_unit, to_unit
from t2i_jax.run_folder import config_of, read_run, read_variables


class Codes(NamedTuple):
    """Pictures as words of a vocabulary, in row order over a grid (rows, columns). Functions are pure, all but `fit`.

    size: of the vocabulary.   channels: D of the vectors.
    encode: (frozen, pictures uint8 [B, H, W, 3]) -> codes int32 [B, rows * columns].
    decode: (frozen, codes int [B, rows * columns]) -> pictures uint8 [B, H, W, 3].
    vectors: (frozen) -> float32 [size, D], what each code stands for.
    scales: sides of square grids, coarse to fine, if codes are of several, one after another; then N is that of all places.
    coarse: of such codes, (frozen, codes) -> float32 [B, N, D], the picture at each place as all coarser grids have it.
    fit: (source) -> frozen, a nested dict of numpy arrays; of a trained first stage, its averaged weights.
    """

    grid: tuple[int, int]
    size: int
    channels: int
    encode: Callable
    decode: Callable
    vectors: Callable
    fit: Callable
    scales: tuple[int, ...] = ()
    coarse: Callable | None = None


class Latents(NamedTuple):
    """Pictures as arrays of `shape` (rows, columns, channels), of mean 0 and deviation about 1. Functions as of `Codes`.

    encode: (frozen, pictures uint8 [B, H, W, 3]) -> latents float32 [B, *shape].
    decode: (frozen, latents [B, *shape]) -> pictures uint8 [B, H, W, 3].
    """

    shape: tuple[int, int, int]
    encode: Callable
    decode: Callable
    fit: Callable


def make_codes(config, scales: bool = False) -> Codes:
    """The codes of `config.first_stage`: of the run it names, else of a patch codebook (`config.image_tokenizer`).

    scales: whether codes of several grids are wanted. Raises ValueError if that run's family has no codes, or others, or this
    resolution does not fit it.
    """
    if not config.first_stage.run and (scales or not config.get("image_tokenizer")):
        raise ValueError(f"family {config.family!r} needs config.first_stage.run, the folder of a run of family 'vqgan'")
    stage = _of_run(config, "make_codes") if config.first_stage.run else _patches(config)
    if bool(stage.scales) != scales:
        have, want = ("several grids", "one") if stage.scales else ("one grid", "several")
        raise ValueError(
            f"the codes of this first stage are of {have}, and family {config.family!r} draws those of {want}: with "
            "quantizer.scales a first stage has several, which family 'next_scale' draws"
        )
    return stage


def make_latents(config) -> Latents:
    """The latents of `config.first_stage`: of the run it names, else the pixels as they are. Raises as `make_codes` does."""
    return _of_run(config, "make_latents") if config.first_stage.run else _pixels(config)


def codes_of(stage: Codes, ctx: Context):
    """Codes int32 [B, N] of the batch: those computed before training (precompute.py), or computed now."""
    return _of_batch(stage, ctx, "codes")


def latents_of(stage: Latents, ctx: Context):
    """Latents float32 [B, *shape] of the batch, as `codes_of`."""
    return _of_batch(stage, ctx, "latent")


def precomputed(stage: Codes | Latents, name: str) -> Callable:
    """`Family.precompute` of a family that is trained on the "codes" or the "latent" of a first stage."""
    return lambda frozen, image: {name: stage.encode(frozen.get("first_stage", {}), image)}


def codes_abilities(stage: Codes) -> dict[str, Callable]:
    """What a model that draws codes can do by its first stage alone."""

    def encode(variables: Variables, inputs, rng=None):
        """Codes int32 [B, N] of uint8 pictures."""
        return stage.encode(variables.frozen["first_stage"], inputs["image"])

    def decode(variables: Variables, inputs, rng=None):
        """Pictures uint8 [B, H, W, 3] of codes."""
        return stage.decode(variables.frozen["first_stage"], inputs["codes"])

    def reconstruct(variables: Variables, inputs, rng=None):
        """The pictures as the first stage sees them: the ceiling of what this model can draw."""
        return decode(variables, {"codes": encode(variables, inputs)})

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct}


def resolve(config, workdir):
    """`config` with the whole config of the run that `first_stage.run` names in `first_stage.config`.

    Of a run that goes on in `workdir` it is as it was, wherever the other run's folder is now. Raises FileNotFoundError if it
    is no run folder.
    """
    origin = config.first_stage.run
    if not origin or config.first_stage.config:
        return config
    if last_whole(workdir) is not None and (before := config_of(read_run(workdir)).first_stage).run == origin:
        found = before.config
    else:
        found = config_of(read_run(origin))
    config = configs.from_json(configs.to_json(config))
    with config.unlocked():
        config.first_stage.config = found.to_dict()
    return config.lock()


def _of_batch(stage, ctx, name):
    if name in ctx.batch:
        return ctx.batch[name]
    return precomputed(stage, name)(ctx.frozen, ctx.batch["image"])[name]


def _of_run(config, what):
    own = configs.from_json(json.dumps(config.first_stage.config.to_dict()))
    with own.unlocked():
        own.data.resolution = config.data.resolution  # convolutions take other sizes than they were trained on
    if own.family not in (able := having("families", what)):
        raise ValueError(
            f"first_stage.run: {config.first_stage.run} is a run of family {own.family!r}; it must be of {' or '.join(able)}"
        )
    stage = make_of("families", own.family, what)(own)

    def fit(source):
        origin = config.first_stage.run
        return stage.fit(read_variables(origin, read_run(origin)), source)

    return stage._replace(fit=fit)


def _patches(config) -> Codes:
    """A codebook of square patches, fitted to `fit_pictures` pictures of the run's own (models/patch_codebook.py)."""
    tokenizer, resolution = config.image_tokenizer, config.data.resolution
    if resolution % tokenizer.patch:
        raise ValueError(f"data.resolution {resolution} is not a multiple of image_tokenizer.patch {tokenizer.patch}")
    grid = (resolution // tokenizer.patch, resolution // tokenizer.patch)

    def fit(source):
        count = min(len(source.captions), tokenizer.fit_pictures)
        chosen = np.random.default_rng(config.seed).choice(len(source.captions), count, replace=False)
        pictures = source.read(np.sort(chosen))
        return {"codebook": patch_codebook.fit(pictures, tokenizer.patch, tokenizer.codes, config.seed)}

    return Codes(
        grid=grid,
        size=tokenizer.codes,
        channels=3 * tokenizer.patch**2,
        encode=lambda frozen, image: patch_codebook.encode(frozen["codebook"], to_unit(image)),
        decode=lambda frozen, codes: from_unit(patch_codebook.decode(frozen["codebook"], codes, grid)),
        vectors=lambda frozen: frozen["codebook"],
        fit=fit,
    )


def _pixels(config) -> Latents:
    return Latents(
        shape=(config.data.resolution, config.data.resolution, 3),
        encode=lambda frozen, image: to_unit(image),
        decode=lambda frozen, latents: from_unit(latents),
        fit=lambda source: {},
    )
