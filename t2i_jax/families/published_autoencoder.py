"""The autoencoder of a published latent diffusion model, as the first stage of its family."""

import jax.numpy as jnp

from t2i_jax.core.family import Encoding
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Latents
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.data.buckets import sizes_of
from t2i_jax.families.config_fields import network_fields
from t2i_jax.families.first_stage import ENCODING_VERSION
from t2i_jax.models import autoencoder_kl
from t2i_jax.models.tiles import in_tiles
from t2i_jax.models.variants import fields_of

MAX_SIDE = 8192  # pixels
LEAST_TILE = 4  # latents
OVERLAP = 0.25  # share of a tile that the next one has too, as in diffusers
TILE = Field(
    0, "latents of a side of the tiles that the autoencoder takes one by one; 0: all", 0, MAX_SIDE
)


def autoencoder_fields(config) -> dict[str, Field]:
    """Return the fields of the section "vae"."""
    variant = config.get("vae", {}).get("variant", "")
    return network_fields(autoencoder_kl.AutoencoderKL, variant=variant)


def side_fields(config) -> dict[str, Field]:
    """Return the fields of a picture's sides, and of tiles.

    The sides are those of the training data by default.
    """
    meaning = "pixels; a multiple of 8, of transformers of 16"
    side = Field(config.data.get("resolution", 512), meaning, 8, MAX_SIDE)
    return {"width": side, "height": side, "tile": TILE}


def make_autoencoder(config) -> autoencoder_kl.AutoencoderKL:
    """Return the autoencoder of `config.vae`: its fields, and `variant`."""
    return autoencoder_kl.AutoencoderKL(**fields_of(config.vae, autoencoder_kl.VARIANTS))


def make_latents(config, height: int, width: int, patch: int = 1, tile: int = 0) -> Latents:
    """Return the latents of the frozen autoencoder; the mean of those that it encodes.

    patch: side of the square of latents that becomes one token of a transformer.
    tile: side in latents of the tiles that are encoded and decoded one by one (models/tiles.py),
        or 0 for the whole picture at once.
    Raises ValueError, naming the nearest, for a side that is not made of whole patches; and for
    tiles of fewer than LEAST_TILE latents.
    """
    net = make_autoencoder(config)
    kind = type(net)
    cell = 2 ** (len(net.multipliers) - 1)
    unit = cell * patch
    for name, side in (("height", height), ("width", width)):
        if side % unit:
            nearest = max(unit, round(side / unit) * unit)
            raise ValueError(
                f"{name} is {side}: it must be a multiple of {unit}, such as {nearest}"
            )

    if 0 < tile < LEAST_TILE:
        raise ValueError(f"tile is {tile}: it must be at least {LEAST_TILE}, or 0 for no tiles")

    def tiled(network, x, inner=1, outer=1):
        if tile == 0 or max(x.shape[1:3]) <= tile * inner:
            return network(x)
        return in_tiles(network, x, tile, int(tile * OVERLAP), inner, outer)

    def encode(frozen, image):
        def mean_of(pictures):
            mean, _ = net.apply({"params": frozen}, pictures, method=kind.encode)
            return jnp.asarray(mean, jnp.float32)

        return net.scale(tiled(mean_of, to_unit(image), inner=cell))

    def decode(frozen, latents):
        def pictures_of(z):
            pictures = net.apply({"params": frozen}, z, method=kind.decode)
            return jnp.asarray(pictures, jnp.float32)

        return from_unit(tiled(pictures_of, net.unscale(latents), outer=cell))

    return Latents((height // cell, width // cell, net.latent), encode, decode, fit=_no_autoencoder)


def check_sizes(config, patch: int = 1) -> None:
    """Raise ValueError as `make_latents` for a size of training pictures that has no latents."""
    for height, width in sizes_of(config.data):
        make_latents(config, height, width, patch)


def encoding_of(config, latents: Latents) -> Encoding:
    """Return `Family.encoding`: what is computed once for each picture are its latents."""
    return Encoding(
        compute=lambda frozen, image: {"latent": latents.encode(frozen["first_stage"], image)},
        parts=("first_stage",),
        depends_on=[ENCODING_VERSION, config.vae.to_dict()],
    )


def _no_autoencoder(source, read_run):
    """Refuse to start without published weights: this is `Family.make_frozen`."""
    raise ValueError(
        "this family starts from a published model: convert it to a run "
        "(main.py convert --from=PATH --workdir=RUN), and set init_from=RUN"
    )
