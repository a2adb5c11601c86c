"""What families of published latent diffusion models share: their sampler's field, their Family."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Family
from t2i_jax.core.fields import Field
from t2i_jax.families import redrawing
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.denoising import NEGATIVE, check_interval, make_sample
from t2i_jax.families.diffusion import make_loss
from t2i_jax.families.published_autoencoder import encoding_of
from t2i_jax.families.reranking import with_candidates

PUBLISHED = "published"  # the sampler that the model was published with


def sampler_field(names: Iterable[str]) -> Field:
    """Return the field of the sampler. names: those that can replace the published one."""
    meaning = "method that solves for the picture; that of diffusion.scheduler, or another one"
    return Field(PUBLISHED, meaning, choices=(PUBLISHED, *names))


def make_family(
    config,
    denoiser: Denoiser,
    conditioning: Conditioning,
    make_plan: Callable,
    section: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Family:
    """Return the family of a published model.

    denoiser: of pictures of the training data.
    make_plan: (**settings) -> `denoising.Plan`, of pictures of any size.
    section: the config's `diffusion`.   settings: the config's `sample`.
    Raises ValueError for settings that do not fit each other.
    """
    if NEGATIVE in settings:  # the network is guided
        check_interval(settings)
    return Family(
        init=lambda rng, batch: ({"model": denoiser.init(rng, batch)}, {}),
        losses={"model": make_loss(denoiser, conditioning, section)},
        abilities={
            "sample": with_candidates(make_sample(make_plan, conditioning), config),
            **redrawing.make_redrawing(make_plan, conditioning),
        },
        settings={"sample": settings, **redrawing.redrawing_settings(config, settings)},
        static=("sampler", "steps", "width", "height", "tile", "candidates", "strength"),
        texts=(NEGATIVE,) if NEGATIVE in settings else (),
        make_frozen=denoiser.latents.fit,
        pretrained=conditioning.pretrained,
        encoding=encoding_of(config, denoiser.latents),
    )
