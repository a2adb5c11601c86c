"""Diffusion of pictures whose patches are those of a codebook: the network says which they are.

Source: continuous diffusion for categorical data (arXiv 2211.15089). What a sampler needs is the
mean of the clean picture, given a noisy one. Each patch is one of the codebook, so its mean is that
of the codebook under the probabilities of its codes ("score interpolation", section 3.1). Those are
learned by cross-entropy, whose size does not depend on the level of noise; so the layout, which is
decided where there is most noise, is learned as well as edges are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Context, Family
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes
from t2i_jax.core.random import split_keys
from t2i_jax.core.registry import lookup
from t2i_jax.diffusion.schedules import make_schedule
from t2i_jax.families import diffusion, redrawing, unclip
from t2i_jax.families.conditioning import Conditioning
from t2i_jax.families.config_fields import read_section, remat_of
from t2i_jax.families.denoising import NEGATIVE, check_interval, make_sample
from t2i_jax.families.embedder import conditioning_of
from t2i_jax.families.first_stage import (
    batch_latents,
    codes_abilities,
    image_tokenizer_fields,
    load_codes,
    load_latents,
    make_frozen,
)
from t2i_jax.families.reranking import with_candidates
from t2i_jax.families.token_loss import part_cross_entropy
from t2i_jax.families.word_maps import word_map_abilities
from t2i_jax.models.code_head import CodeHead, probabilities
from t2i_jax.models.layers import depth_to_space, space_to_depth
from t2i_jax.models.recompute import with_remat
from t2i_jax.models.word_attention import token_maps

HEAD_WIDTH = 128  # numbers of the network's output for a cell
DIFFUSION_FIELDS = {"schedule": diffusion.DIFFUSION_FIELDS["schedule"], **diffusion.TIME_FIELDS}
SAMPLE_FIELDS = {
    name: field for name, field in diffusion.SAMPLE_FIELDS.items() if name != "rescale"
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "model": diffusion.fields(config)["model"],
        "diffusion": DIFFUSION_FIELDS,
        "sample": SAMPLE_FIELDS,
        **redrawing.FIELDS,
        **unclip.FIELDS,
        **image_tokenizer_fields(config),
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text and reranker.

    Raises ValueError for an unknown name or field of these, for the first stage of another run, and
    for a network that has no `features`.
    """
    del axis_name  # nothing here compares examples
    if config.first_stage.run:
        raise ValueError(
            "family 'code_diffusion' draws patches of pixels, which config.image_tokenizer "
            "describes: leave out config.first_stage.run"
        )
    stage, conditioning = load_codes(config), conditioning_of(config)
    network = make_network(config, stage)
    denoiser = make_denoiser(config, stage, conditioning, network)
    settings = read_section(config, "sample", SAMPLE_FIELDS)
    check_interval(settings)

    make_plan = diffusion.make_plan_of(denoiser)
    sample = with_candidates(make_sample(make_plan, conditioning), config)
    family = Family(
        init=lambda rng, batch: ({"model": denoiser.init(rng, batch)}, {}),
        losses={"model": make_loss(denoiser, stage, conditioning, network)},
        abilities={
            "sample": sample,
            **redrawing.make_redrawing(make_plan, conditioning),
            **codes_abilities(stage),
            **word_map_abilities(denoiser, conditioning),
        },
        settings={"sample": settings, **redrawing.redrawing_settings(config, settings)},
        static=("sampler", "steps", "candidates", "strength"),
        texts=(NEGATIVE,),
        frozen_depends_on=("image_tokenizer",),
        make_frozen=make_frozen(stage),
        pretrained=conditioning.pretrained,
    )
    return unclip.with_embeddings(family, config)


class Network(NamedTuple):
    """A network that tells the codes of noisy pictures.

    init: (rng, x, condition) -> params.
    true: (params, x_t, t, condition, codebook, codes, keys=None) -> `CodeHead.__call__`.
    every: (params, x_t, t, condition, codebook) -> `CodeHead.every`.
    attention: as `Denoiser.attention`.
    """

    init: Callable
    true: Callable
    every: Callable
    attention: Callable | None


def make_network(config, stage: Codes) -> Network:
    """Return the network of `config.model`, with an output layer for the codes of each patch."""
    name = config.model.get("network", diffusion.NETWORK_FIELD.default)
    body = lookup("models", name)(config.model)
    if not hasattr(body, "features"):
        raise ValueError(f"network {name!r} cannot tell codes: set model.network to unet or dit")
    patch = config.image_tokenizer.patch
    features = max(1, HEAD_WIDTH // patch**2)  # of a pixel
    shown = body.clone(features=features)
    body = with_remat(shown, remat_of(config))
    head = CodeHead(stage.size, features * patch**2, stage.parts)

    def init(rng, x, condition):
        cells, codes = jnp.zeros((1, 1, head.width)), jnp.zeros((1, 1), jnp.int32)
        codebook = jnp.zeros((stage.size, stage.channels))
        return {
            "body": body.init(rng, x, jnp.zeros(1), condition)["params"],
            "head": head.init(rng, cells, codebook, codes)["params"],
        }

    def cells_of(params, x_t, t, condition, keys) -> Any:
        x: Any = body.apply({"params": params["body"]}, x_t, t, condition, keys)
        return space_to_depth(x, patch).reshape(len(x), -1, head.width)

    def true(params, x_t, t, condition, codebook, codes, keys=None) -> Any:
        cells = cells_of(params, x_t, t, condition, keys)
        return head.apply({"params": params["head"]}, cells, codebook, codes)

    def every(params, x_t, t, condition, codebook) -> Any:
        cells = cells_of(params, x_t, t, condition, None)
        return head.apply({"params": params["head"]}, cells, codebook, method="every")

    def attention(params, x_t, t, condition):
        return token_maps(shown, params["body"], x_t, t, condition)

    attends = getattr(shown, "text_attention", "")
    return Network(init, true, every, attention if attends else None)


def make_denoiser(config, stage: Codes, conditioning: Conditioning, network: Network) -> Denoiser:
    """Return the denoiser of a config; it draws once it is bound to the codebook."""
    settings = read_section(config, "diffusion", DIFFUSION_FIELDS)
    latents, patch = load_latents(config), config.image_tokenizer.patch

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = conditioning.init(rng_text, batch)
        x = jnp.zeros((1, *latents.shape))
        return {"text": text_params, "net": network.init(rng_net, x, condition)}

    def encode_text(params, frozen, text, keys=None):
        return conditioning.encode(params["text"], frozen, text, keys)

    def unbound(*_):
        raise TypeError("the denoiser has no codebook: call its `bind` first")

    def bind(frozen) -> Denoiser:
        codebook = stage.vectors(frozen)

        def predict(params, x_t, t, condition):
            return network.every(params["net"], x_t, t, condition, codebook)

        def mean(logits):
            patches = probabilities(logits) @ codebook
            return depth_to_space(patches.reshape(-1, *stage.grid, stage.channels), patch)

        return denoiser._replace(predict=predict, mean=mean, bind=None)

    schedule, times = make_schedule(settings["schedule"]), diffusion.make_draw_times(settings)
    denoiser = Denoiser(init, encode_text, unbound, schedule, "x0", times, latents, bind=bind)
    if network.attention:
        attention = network.attention
        denoiser = denoiser._replace(
            attention=lambda params, *noisy: attention(params["net"], *noisy)
        )
    return denoiser


def make_loss(
    denoiser: Denoiser, stage: Codes, conditioning: Conditioning, network: Network
) -> Callable:
    """Return the loss of the player "model": the nats per code, given the noisy picture.

    The metric `code_accuracy` is how often the likeliest code is the right one.
    """

    def loss(params, ctx: Context):
        model, stage_arrays = params["model"], ctx.frozen["first_stage"]
        drop_keys, dropout_keys, time_keys, noise_keys = split_keys(ctx.keys, 4)
        keys = dropout_keys if ctx.train else None
        text = conditioning.training_text(ctx, drop_keys)
        codebook = stage.vectors(stage_arrays)
        codes = stage.encode(stage_arrays, ctx.batch["image"])
        x0, t = batch_latents(denoiser.latents, ctx), denoiser.draw_times(time_keys)
        c = denoiser.schedule(t[:, None, None, None])
        x_t = c.alpha * x0 + c.sigma * diffusion.training_noise(noise_keys, x0.shape[1:], 0.0)
        condition = denoiser.encode_text(model, ctx.frozen, text, keys)
        logits = network.true(model["net"], x_t, t, condition, codebook, codes, keys)
        nats, likeliest = part_cross_entropy(logits, codes, stage.parts)
        return nats.sum(0).mean(-1), (ctx.extra, {"code_accuracy": likeliest.all(0).mean(-1)})

    return loss
