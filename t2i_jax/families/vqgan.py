"""Autoencoders whose codes or latents another model learns to draw.

VQGAN (arXiv 2012.09841), VQ-VAE (1711.00937) without its discriminator, and, with the quantizer
"kl", the autoencoder of latent diffusion (2112.10752). Text does not condition them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from t2i_jax.adversarial.losses import ABSOLUTE, make_losses
from t2i_jax.core.family import Context, Family, Frozen, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes, Latents
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.families.autoencoder import (
    Autoencoder,
    autoencoder_fields,
    make_abilities,
    make_autoencoder,
)
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.features import efficientnet_lite0
from t2i_jax.models import patch_discriminator
from t2i_jax.models.codebooks import mean_per_example, unit_length
from t2i_jax.models.efficientnet_lite import EfficientNetLite

VQGAN_FIELDS = {
    "l1": Field(1.0, "weight of the mean absolute difference of pixels in [-1, 1]", 0.0),
    "l2": Field(0.0, "weight of the mean squared difference", 0.0),
    "quantizer": Field(1.0, 'weight of the quantizer\'s own loss; with "kl" about 1e-6', 0.0),
    "perceptual": Field(0.0, "weight of the distance of EfficientNet-Lite0's features", 0.0),
    "perceptual_side": Field(64, "side of the pictures from which it computes them, in px", 1),
    "adversarial": Field(0.0, "weight of the discriminator's judgement, times `balance`", 0.0),
    "loss": Field("hinge", "objective of both players", choices=ABSOLUTE),
    "start": Field(0, "step at which the discriminator joins in", 0),
}
STATISTICS_PICTURES = 512  # from which the mean and deviation of latents are computed
MAX_BALANCE = 1e4
MIN_USAGE = 0.05  # share of the codes in use below which `warn` does


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    found = {**autoencoder_fields(config), "vqgan": VQGAN_FIELDS}
    if config.get("vqgan", {}).get("adversarial", 0.0) > 0:
        found["discriminator"] = network_fields(patch_discriminator.PatchDiscriminator)
    return found


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, and data.resolution.

    With vqgan.adversarial the player "model" is followed by "discriminator". Raises ValueError for
    an unknown field and for values that do not fit each other, and FileNotFoundError in
    `make_frozen` if the perceptual loss lacks its weights.
    """
    settings = read_section(config, "vqgan", VQGAN_FIELDS)
    net, side = make_autoencoder(config, axis_name), config.data.resolution
    check(settings)
    make_losses(settings["loss"])  # raises for an unknown one
    discriminator = None
    if settings["adversarial"] > 0:
        discriminator = patch_discriminator.PatchDiscriminator(**config.get("discriminator", {}))
        patch_discriminator.check(discriminator.levels, side)

    def init(rng, batch):
        params, extra = net.init(jax.random.fold_in(rng, 0))
        players = {"model": params}
        if discriminator:
            x = jnp.zeros((1, side, side, 3))
            players["discriminator"] = discriminator.init(jax.random.fold_in(rng, 1), x)["params"]
        return players, extra

    losses = {"model": make_model_loss(settings, net, discriminator, axis_name)}
    if discriminator:
        losses["discriminator"] = make_discriminator_loss(settings, net, discriminator)

    def make_frozen(source, read_run) -> Frozen:
        if not settings["perceptual"]:
            return {}
        return {"perceptual": efficientnet_lite0.make().weights}

    return Family(
        init=init,
        losses=losses,
        abilities=make_abilities(net),
        settings={"sample": {}},
        make_frozen=make_frozen,
        lower_loss_is_better=discriminator is None,
        warn=warn,
    )


def make_model_loss(
    settings: Mapping[str, Any], net: Autoencoder, discriminator, axis_name: str | None
) -> Callable:
    """Return the loss of the player "model"; `discriminator` is a network or None."""
    objective = make_losses(settings["loss"])

    def loss(params, ctx: Context):
        """Return the loss of reconstructions and of the quantizer.

        In training, add how little the reconstructions fool the discriminator.
        """
        x, model = to_unit(ctx.batch["image"]), params["model"]
        found = net.quantize(model, ctx.extra, x, ctx.keys)

        def difference(y) -> tuple[Any, dict]:
            parts = {
                "l1": mean_per_example(jnp.abs(y - x)),
                "l2": mean_per_example(jnp.square(y - x)),
            }
            if settings["perceptual"]:
                parts["perceptual"] = perceptual(
                    ctx.frozen["perceptual"], y, x, settings["perceptual_side"]
                )
            return sum(settings[name] * part for name, part in parts.items()), parts

        def unconvincing(y):
            logits = discriminator.apply({"params": params["discriminator"]}, y)
            return objective.fool(logits).mean((1, 2))

        y = net.draw(model, found.vectors)
        total, metrics = difference(y)
        metrics = {**metrics, **found.metrics, "quantizer": found.loss}
        total = total + settings["quantizer"] * found.loss
        if discriminator and ctx.train:
            draw, kernel = of_last_layer(net, model, found.vectors)
            weight = balance(
                lambda k: difference(draw(k))[0].mean(),
                lambda k: unconvincing(draw(k)).mean(),
                kernel,
                axis_name,
            )
            weight = jnp.where(ctx.step >= settings["start"], settings["adversarial"] * weight, 0.0)
            total = total + weight * unconvincing(y)
            metrics["adversarial_weight"] = jnp.full(len(x), weight)
        return total, (found.extra, metrics)

    return loss


def make_discriminator_loss(
    settings: Mapping[str, Any], net: Autoencoder, discriminator
) -> Callable:
    """Return the loss of the player "discriminator"."""
    objective = make_losses(settings["loss"])

    def loss(params, ctx: Context):
        """Return the loss of telling pictures from their reconstructions.

        The metric `accuracy` says how often a picture's mean logit over its patches is above that
        of its reconstruction.
        """
        x, model = to_unit(ctx.batch["image"]), params["model"]
        y = net.draw(model, net.quantize(model, ctx.extra, x, ctx.keys).vectors)
        real, fake = (
            discriminator.apply({"params": params["discriminator"]}, pictures)
            for pictures in (x, y)
        )
        total = objective.real(real).mean((1, 2)) + objective.fake(fake).mean((1, 2))
        total = total * (ctx.step >= settings["start"])
        real, fake = real.mean((1, 2)), fake.mean((1, 2))
        metrics = {"accuracy": real > fake, "real_logit": real, "fake_logit": fake}
        return total, (ctx.extra, metrics)

    return loss


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of VQGAN_FIELDS that make no sense."""
    for name in ("l1", "l2", "quantizer", "perceptual", "adversarial", "start"):
        if settings[name] < 0:
            raise ValueError(f"vqgan.{name} is {settings[name]}: it is 0 or more")
    if not settings["l1"] + settings["l2"] + settings["perceptual"]:
        raise ValueError(
            "vqgan.l1, vqgan.l2 and vqgan.perceptual are 0: a reconstruction must be compared by "
            "one of them"
        )


def perceptual(
    variables, a: Float[Array, "B H W 3"], b: Float[Array, "B H W 3"], side: int
) -> Float[Array, "B"]:
    """Return the distance of EfficientNet-Lite0's features of pictures in [-1, 1].

    It is that of metrics/similarity.py (arXiv 1801.03924, equation 1, without learned weights), but
    with a gradient, and of pictures resized to `side` px: 224 px, on which the network was trained,
    are too many for training on a CPU.
    """

    def directions(x):
        x = jax.image.resize(127.5 * (x + 1), (len(x), side, side, 3), "bilinear", antialias=True)
        found: Any = EfficientNetLite().apply(variables, (x - 127) / 128)
        return [unit_length(y) for y in found["maps"]]

    pairs = zip(directions(a), directions(b), strict=True)
    total: Any = sum(jnp.square(x - y).sum(3).mean((1, 2)) for x, y in pairs)
    return total


def of_last_layer(net: Autoencoder, params, vectors) -> tuple[Callable, Float[Array, "..."]]:
    """Return (draw, kernel): pictures as a function of the kernel of the decoder's last layer.

    draw: (kernel) -> pictures. Everything else in it has no gradient.
    """
    params, vectors = jax.lax.stop_gradient((params, vectors))
    decoder, last = params["decoder"], params["decoder"]["conv_out"]

    def draw(kernel):
        own = {**params, "decoder": {**decoder, "conv_out": {**last, "kernel": kernel}}}
        return net.draw(own, vectors)

    return draw, last["kernel"]


def balance(
    first: Callable, second: Callable, kernel: Float[Array, "..."], axis_name: str | None = None
) -> Float[Array, ""]:
    """Return |gradient of first| / |gradient of second| at `kernel`, at most MAX_BALANCE.

    It has no gradient itself. Source: arXiv 2012.09841, equation 7.
    first, second: kernel -> the mean [] over the batch, or over this device's part of it under
        `axis_name`.
    """

    def norm(loss):
        gradient = jax.grad(loss)(kernel)
        gradient = gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)
        return jnp.sqrt(jnp.square(gradient).sum())

    return jax.lax.stop_gradient(jnp.minimum(norm(first) / (norm(second) + 1e-6), MAX_BALANCE))


def warn(means: Mapping[str, float]) -> str:
    """Return a warning if the codebook collapses, else ""; see `Family.warn`."""
    usage = means.get("model/usage", means.get("usage", 1.0))
    if usage < MIN_USAGE:
        return (
            f"only {usage:.1%} of the codes are in use (quantizer.kind ema revives the others in "
            "time, fsq has few to lose)"
        )
    return ""


def make_codes(config) -> Codes:
    """Return the codes of a run of this family whose config is `config`.

    Here `fit` takes (Variables of that run, source). Raises ValueError if its quantizer has no
    codes.
    """
    net = make_autoencoder(config)
    if not net.size:
        raise ValueError(
            'this first stage has latents (quantizer.kind "kl") and no codes: train family '
            '"diffusion" on it, or another first stage with quantizer.kind vq, ema, fsq or lfq'
        )
    abilities = make_abilities(net)

    def variables(frozen):
        return Variables({"model": frozen["params"]}, frozen["extra"], {})

    return Codes(
        grid=net.shape[:2],
        size=net.size,
        channels=net.shape[2],
        encode=lambda frozen, image: abilities["encode"](variables(frozen), {"image": image}),
        decode=lambda frozen, codes: abilities["decode"](variables(frozen), {"codes": codes}),
        vectors=lambda frozen: net.vectors(frozen["params"], frozen["extra"], jnp.arange(net.size)),
        fit=lambda variables, source: trained_arrays(variables),
        scales=net.scales,
        coarse=lambda frozen, codes: net.coarse(frozen["params"], frozen["extra"], codes),
    )


def make_latents(config) -> Latents:
    """Return the latents of a run of this family, standardised: mean 0 and deviation 1.

    Mean and deviation are those of each channel, over training pictures. `fit` is as in
    `make_codes`. If the run has codes, latents are the vectors before they become codes, and
    decoding turns them into codes first.
    """
    net = make_autoencoder(config)

    def encode(frozen, image):
        z = net.latents(frozen["params"], to_unit(image))
        return (z - frozen["mean"]) / frozen["deviation"]

    def decode(frozen, latents):
        params, z = frozen["params"], latents * frozen["deviation"] + frozen["mean"]
        if net.size:
            z = net.compose(params, frozen["extra"], net.codes(params, frozen["extra"], z))
        return from_unit(net.draw(params, z))

    def fit(variables, source):
        frozen, total = trained_arrays(variables), len(source.captions)
        count = min(total, STATISTICS_PICTURES)
        latents = jax.jit(lambda image: net.latents(frozen["params"], to_unit(image)))
        places = np.array_split(np.arange(count) * total // count, -(-count // 64))
        z = np.concatenate([np.asarray(latents(source.read(part)), np.float64) for part in places])
        mean, deviation = z.mean((0, 1, 2)), np.maximum(z.std((0, 1, 2)), 1e-6)
        return {
            **frozen,
            "mean": mean.astype(np.float32),
            "deviation": deviation.astype(np.float32),
        }

    return Latents(net.shape, encode, decode, fit)


def trained_arrays(variables: Variables) -> dict:
    """Return what `make_codes` and `make_latents` need of a run, as NumPy arrays."""
    return jax.tree.map(np.asarray, {"params": variables.params["model"], "extra": variables.extra})
