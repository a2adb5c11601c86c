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
from t2i_jax.models.variants import fields_of

MAX_SIDE = 8192  # pixels


def autoencoder_fields(config) -> dict[str, Field]:
    """Return the fields of the section "vae"."""
    variant = config.get("vae", {}).get("variant", "")
    return network_fields(autoencoder_kl.AutoencoderKL, variant=variant)


def side_fields(config) -> dict[str, Field]:
    """Return the fields of a picture's sides: those of the training data by default."""
    meaning = "pixels; a multiple of 8, of transformers of 16"
    side = Field(config.data.get("resolution", 512), meaning, 8, MAX_SIDE)
    return {"width": side, "height": side}


def make_autoencoder(config) -> autoencoder_kl.AutoencoderKL:
    """Return the autoencoder of `config.vae`: its fields, and `variant`."""
    return autoencoder_kl.AutoencoderKL(**fields_of(config.vae, autoencoder_kl.VARIANTS))


def make_latents(config, height: int, width: int, patch: int = 1) -> Latents:
    """Return the latents of the frozen autoencoder; the mean of those that it encodes.

    patch: side of the square of latents that becomes one token of a transformer.
    Raises ValueError, naming the nearest, for a side that is not made of whole patches.
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

    def encode(frozen, image):
        mean, _ = net.apply({"params": frozen}, to_unit(image), method=kind.encode)
        return net.scale(jnp.asarray(mean, jnp.float32))

    def decode(frozen, latents):
        pictures = net.apply({"params": frozen}, net.unscale(latents), method=kind.decode)
        return from_unit(jnp.asarray(pictures, jnp.float32))

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
