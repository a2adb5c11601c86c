"""The first stage of a family that draws codes or latents; it is frozen while the family trains.

It is either fitted to the pictures of the run itself, before its first step (a codebook of patches;
for latents, the principal components of pictures, or the pixels as they are), or taken from another
run. That run's folder is `config.first_stage.run`, and its config `config.first_stage.config`; its
arrays are copied into the run that uses them. They are the frozen part "first_stage".
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from t2i_jax.core.family import Context, Encoding, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes, Latents
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.registry import defines, lookup, names_with
from t2i_jax.core.types import AnyArray
from t2i_jax.models import eigenpictures, patch_codebook, two_colour_codebook

# Raise it when an encoder's code comes to give other numbers from the same weights.
ENCODING_VERSION = 1
# Of `config.image_tokenizer`, the codebook of patches of a run without another run's first stage.
IMAGE_TOKENIZER_FIELDS = {
    "patch": Field(4, "side of a patch, in pixels", 1, 1024),
    "codes": Field(1024, "size of the codebook", 2, 2**20),
    "pairs": Field(
        0,
        "pairs of colours that patches are mixed of, a divisor of codes; 0: patches as they are",
        0,
        4096,
    ),
    "fit_pictures": Field(
        4000, "number of training pictures that the codebook is fitted to", 1, 10**7
    ),
}
# Of `config.eigenpictures`, latents of whole pictures.
EIGENPICTURES_FIELDS = {
    "components": Field(256, "numbers that describe a picture", 1, 2**16),
    "fit_pictures": Field(
        2000, "number of training pictures that the components are fitted to", 1, 20_000
    ),
}


def image_tokenizer_fields(config) -> dict[str, dict[str, Field]]:
    """Return the section "image_tokenizer" if `config` has it. It needs none with another run."""
    return {"image_tokenizer": IMAGE_TOKENIZER_FIELDS} if config.get("image_tokenizer") else {}


def eigenpictures_fields(config) -> dict[str, dict[str, Field]]:
    """Return the section "eigenpictures" if `config` has it."""
    return {"eigenpictures": EIGENPICTURES_FIELDS} if config.get("eigenpictures") else {}


def load_codes(config, scales: bool = False) -> Codes:
    """Return the codes that `config.first_stage` describes.

    They are those of the run it names, else of a patch codebook (`config.image_tokenizer`).
    scales: whether multi-scale codes are wanted.
    Raises ValueError if that run's family has no codes, or codes of the other kind, or if the
    resolution does not fit.
    """
    if not config.first_stage.run and (scales or not config.get("image_tokenizer")):
        raise ValueError(
            f"family {config.family!r} needs config.first_stage.run, the folder of a run of family "
            "'vqgan'"
        )
    codes = _of_run(config, "make_codes") if config.first_stage.run else _patches(config)
    if bool(codes.scales) != scales:
        have, want = ("several grids", "one") if codes.scales else ("one grid", "several")
        raise ValueError(
            f"the codes of this first stage are of {have}, and family {config.family!r} draws "
            f"those of {want}: with quantizer.scales a first stage has several, which family "
            "'next_scale' draws"
        )
    return codes


def load_latents(config) -> Latents:
    """Return the latents of the run that `config.first_stage` names.

    Without one, they are those of `config.eigenpictures`, or else the pixels as they are.
    Raises ValueError if that run's family has no latents.
    """
    if config.first_stage.run:
        return _of_run(config, "make_latents")
    return _eigenpictures(config) if config.get("eigenpictures") else _pixels(config)


def batch_codes(codes: Codes, ctx: Context) -> Int[AnyArray, "B N"]:
    """Return the codes of the batch: from the encoding cache, or computed now."""
    return _of_batch(codes, ctx, "codes")


def batch_latents(latents: Latents, ctx: Context) -> Float[AnyArray, "B rows columns channels"]:
    """Return the latents of the batch: from the encoding cache, or computed now."""
    return _of_batch(latents, ctx, "latent")


def encoding(stage: Codes | Latents, name: str, config) -> Encoding:
    """Return `Family.encoding` of a family that is trained on encoded pictures.

    name: "codes" or "latent", of the first stage `stage`.
    """
    return Encoding(
        compute=lambda frozen, image: {name: stage.encode(frozen.get("first_stage", {}), image)},
        parts=("first_stage",),
        depends_on=[ENCODING_VERSION, config.first_stage.config.to_dict()],
    )


def make_frozen(stage: Codes | Latents) -> Callable:
    """Return `Family.make_frozen` of a family whose only frozen part is its first stage."""

    def fit(source, read_run):
        fitted = stage.fit(source, read_run)
        return {"first_stage": fitted} if fitted else {}  # pixels need nothing

    return fit


def codes_abilities(codes: Codes) -> dict[str, Callable]:
    """Return the abilities that a model of codes has by its first stage alone."""

    def encode(variables: Variables, inputs, keys=None):
        """Encode inputs["image"], uint8 pictures, to codes int32 [B, N]."""
        return codes.encode(variables.frozen["first_stage"], inputs["image"])

    def decode(variables: Variables, inputs, keys=None):
        """Decode inputs["codes"], int [B, N], to pictures uint8 [B, H, W, 3]."""
        return codes.decode(variables.frozen["first_stage"], inputs["codes"])

    def reconstruct(variables: Variables, inputs, keys=None):
        """Encode and decode the pictures: the best that a model of these codes can draw."""
        return decode(variables, {"codes": encode(variables, inputs)})

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct}


def _of_batch(stage, ctx, name):
    if name in ctx.batch:
        return ctx.batch[name]
    return stage.encode(ctx.frozen.get("first_stage", {}), ctx.batch["image"])


def _of_run(config, function):
    """Call `make_codes` or `make_latents` of the other run's family, at this run's resolution."""
    other: Any = ConfigDict(config.first_stage.config.to_dict())
    other.data.resolution = config.data.resolution  # convolutions take other sizes too
    if not defines("families", other.family, function):
        able = names_with("families", function)
        raise ValueError(
            f"first_stage.run: {config.first_stage.run} is a run of family {other.family!r}; it "
            f"must be of {' or '.join(able)}"
        )
    stage = lookup("families", other.family, function)(other.lock())

    def fit(source, read_run):
        return stage.fit(read_run(config.first_stage.run), source)

    return stage._replace(fit=fit)


def _patches(config) -> Codes:
    """A codebook of square patches, fitted to `fit_pictures` of the run's own pictures."""
    tokenizer, resolution = config.image_tokenizer, config.data.resolution
    patch, size, pairs = tokenizer.patch, tokenizer.codes, tokenizer.get("pairs", 0)
    if resolution % patch:
        raise ValueError(
            f"data.resolution {resolution} is not a multiple of image_tokenizer.patch {patch}"
        )
    if pairs and (size % pairs or size < 3 * pairs):
        raise ValueError(
            f"image_tokenizer.codes is {size}: let it be a multiple of image_tokenizer.pairs, "
            f"{pairs}, and three times as many or more"
        )
    grid = (resolution // patch, resolution // patch)
    book: Any = two_colour_codebook if pairs else patch_codebook

    def arrays(frozen):
        return frozen if pairs else frozen["codebook"]

    def fit(source, read_run):
        pictures = some_pictures(source, tokenizer.fit_pictures, config.seed)
        if pairs:
            return two_colour_codebook.fit(pictures, patch, pairs, size // pairs, config.seed)
        return {"codebook": patch_codebook.fit(pictures, patch, size, config.seed)}

    return Codes(
        grid=grid,
        size=size,
        channels=3 * patch**2,
        encode=lambda frozen, image: book.encode(arrays(frozen), to_unit(image)),
        decode=lambda frozen, codes: from_unit(book.decode(arrays(frozen), codes, grid)),
        vectors=lambda frozen: book.vectors(arrays(frozen)),
        fit=fit,
        parts=(pairs, size // pairs) if pairs else (),
    )


def some_pictures(source, most: int, seed: int):
    """Return at most so many pictures of a source, drawn by `seed`: uint8 [N, H, W, 3]."""
    count = min(len(source.captions), most)
    chosen = np.random.default_rng(seed).choice(len(source.captions), count, replace=False)
    return source.read(np.sort(chosen))


def _eigenpictures(config) -> Latents:
    """Principal components of whole pictures, fitted to `fit_pictures` of the run's own."""
    section, side = config.eigenpictures, config.data.resolution

    def fit(source, read_run):
        pictures = some_pictures(source, section.fit_pictures, config.seed)
        return eigenpictures.fit(pictures, section.components)

    return Latents(
        shape=(1, 1, section.components),
        encode=lambda frozen, image: eigenpictures.encode(frozen, to_unit(image)),
        decode=lambda frozen, x: from_unit(eigenpictures.decode(frozen, x, (side, side, 3))),
        fit=fit,
    )


def _pixels(config) -> Latents:
    return Latents(
        shape=(config.data.resolution, config.data.resolution, 3),
        encode=lambda frozen, image: to_unit(image),
        decode=lambda frozen, latents: from_unit(latents),
        fit=lambda source, read_run: {},
    )
