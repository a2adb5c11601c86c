"""Autoencoders whose codes or latents another model learns to draw: VQGAN (arXiv 2012.09841), VQ-VAE (1711.00937) without its
discriminator, and, with the quantizer "kl", the autoencoder of latent diffusion (2112.10752). Captions are not heard."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.adversarial.losses import make_losses
from t2i_jax.families.family import Context, Family, Variables, over
from t2i_jax.features import efficientnet_lite0
from t2i_jax.first_stage import Codes, Latents
from t2i_jax.models import patch_discriminator, quantize, vqgan
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.models.layers import from_unit, to_unit
from t2i_jax.models.scales import over_scales
from t2i_jax.models.unet import space_to_depth
from t2i_jax.models.variants import fields_of

VQGAN = {
    "l1": 1.0,  # weight of the mean absolute difference of pixels in [-1, 1]
    "l2": 0.0,  # of the mean squared difference
    "quantizer": 1.0,  # of the quantizer's own loss; of "kl" about 1e-6
    "perceptual": 0.0,  # of the distance of EfficientNet-Lite0's features
    "perceptual_side": 64,  # px, the size at which it is shown pictures
    "adversarial": 0.0,  # of what the discriminator says, times `balance`
    "loss": "hinge",  # one of adversarial/losses.py
    "start": 0,  # the step at which the discriminator joins in
}
MEASURED = 512  # pictures of which the mean and deviation of latents are taken
LARGEST = 1e4  # of `balance`
# "patches": the pixels of a cell as they are. Its code then depends on nothing else, which a second model learns far sooner.
ENCODERS = ("convolutional", "patches")
FEW = 0.05  # of the codes, see `warn`


class Autoencoder(NamedTuple):
    """A config's networks and quantizer, as functions of their parameters (those of the player "model") and state `extra`.

    size: of the vocabulary, 0 if there are no codes.   shape: (rows, columns, channels) of latents and of vectors.
    init: (rng) -> (params, extra).
    quantize: (params, extra, pictures, keys [B]) -> models.quantize.Quantized, in training.
    latents: (params, pictures) -> float [B, *shape].
    codes: (params, extra, latents) -> int32 [B, N].   vectors: (params, extra, codes [...]) -> [..., channels].
    compose: (params, extra, codes [B, N]) -> vectors [B, *shape].   scales, coarse: see `first_stage.Codes`.
    draw: (params, vectors [B, *shape]) -> pictures.   Pictures are float [B, R, R, 3] in [-1, 1].
    """

    size: int
    shape: tuple[int, int, int]
    init: Callable
    quantize: Callable
    latents: Callable
    codes: Callable
    vectors: Callable
    compose: Callable
    draw: Callable
    scales: tuple[int, ...]
    coarse: Callable


def make_autoencoder(config, axis_name=None) -> Autoencoder:
    """Fields used: data.resolution, model.* (of both networks of models/vqgan.py, `variant`, and `encoder`, one of
    ENCODERS), quantizer.* (`kind`, the arguments of that function of models/quantize.py, and `scales` of models/scales.py).
    Raises ValueError for what they cannot be.
    """
    fields, network = dict(config.quantizer), fields_of(config.model, vqgan.VARIANTS)
    looks = network.pop("encoder", ENCODERS[0])
    scales = tuple(fields.pop("scales", ()))
    quantizer = quantize.from_fields(fields, axis_name)
    scaled = over_scales(quantizer, scales) if scales else None
    quantizer = scaled.quantizer if scales else quantizer
    encoder, decoder = vqgan.Encoder(quantizer.channels, **network), vqgan.Decoder(**network)
    vqgan.check(encoder, config.data.resolution)
    factor = vqgan.factor(encoder)
    side = config.data.resolution // factor
    shape, patches = (side, side, quantizer.dim), looks == "patches"
    if looks not in ENCODERS:
        raise ValueError(f"model.encoder is {looks!r}; it can be {' or '.join(ENCODERS)}")
    if scales and scales[-1] != side:
        raise ValueError(f"quantizer.scales ends with {scales[-1]}, and a picture has {side} x {side} cells of {factor} px")
    if patches and (fields["kind"] not in ("vq", "ema") or quantizer.dim != 3 * factor**2):
        raise ValueError(
            f'model.encoder "patches" gives {3 * factor**2} numbers a cell: set quantizer.kind to vq or ema and quantizer.dim '
            "to that"
        )
    if (patches or scales) and fields.get("normalize", fields["kind"] in ("vq", "ema")):
        raise ValueError(
            "quantizer.normalize forgets how bright a patch is, and how little a finer grid adds: set it to False with "
            'model.encoder "patches" and with quantizer.scales'
        )

    def init(rng):
        rngs = jax.random.split(rng, 3)
        codebook, extra = quantizer.init(rngs[2])
        x = jnp.zeros((1, config.data.resolution, config.data.resolution, 3))
        networks = {} if patches else {"encoder": encoder.init(rngs[0], x)["params"]}
        networks["decoder"] = decoder.init(rngs[1], jnp.zeros((1, *shape)))["params"]
        return {**networks, "quantizer": codebook}, extra

    def own(params):
        return params.get("quantizer", {})  # files keep no empty dicts

    def look(params, x):
        return space_to_depth(x, factor) if patches else encoder.apply({"params": params["encoder"]}, x)

    def compose(params, extra, codes):
        if scales:
            return scaled.compose(own(params), extra, codes)
        return quantizer.lookup(own(params), extra, codes.reshape(-1, side, side))

    return Autoencoder(
        size=quantizer.size,
        shape=shape,
        init=init,
        quantize=lambda params, extra, x, keys: quantizer.apply(own(params), extra, look(params, x), keys),
        latents=lambda params, x: quantizer.latent(look(params, x)),
        codes=lambda params, extra, z: quantizer.encode(own(params), extra, z).reshape(len(z), -1),
        vectors=lambda params, extra, codes: quantizer.lookup(own(params), extra, codes),
        compose=compose,
        draw=lambda params, vectors: decoder.apply({"params": params["decoder"]}, vectors),
        scales=scales,
        coarse=lambda params, extra, codes: scaled.coarse(own(params), extra, codes),
    )


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_autoencoder`, vqgan.* (over VQGAN) and, where vqgan.adversarial is not 0, discriminator.*
    (of PatchDiscriminator).

    The player "model" is alone, or followed by "discriminator". Raises ValueError for an unknown or impossible setting, and
    FileNotFoundError in `make_frozen` if the perceptual loss lacks its weights.
    """
    settings, net = over(VQGAN, config.get("vqgan", {}), "vqgan"), make_autoencoder(config, axis_name)
    check(settings)
    game, objective, side = settings["adversarial"] > 0, make_losses(settings["loss"]), config.data.resolution
    if game:
        discriminator = patch_discriminator.PatchDiscriminator(**config.get("discriminator", {}))
        patch_discriminator.check(discriminator.levels, side)

    def init(rng, batch):
        params, extra = net.init(jax.random.fold_in(rng, 0))
        players = {"model": params}
        if game:
            x = jnp.zeros((1, side, side, 3))
            players["discriminator"] = discriminator.init(jax.random.fold_in(rng, 1), x)["params"]
        return players, extra

    def judge(params, x):
        return discriminator.apply({"params": params["discriminator"]}, x)

    def model_loss(params, ctx: Context):
        """What reconstructions and codes cost and, in training, how little they fool the discriminator."""
        x, own = to_unit(ctx.batch["image"]), params["model"]
        found = net.quantize(own, ctx.extra, x, ctx.keys)

        def unlike(y):
            parts = {"l1": quantize.means(jnp.abs(y - x)), "l2": quantize.means(jnp.square(y - x))}
            if settings["perceptual"]:
                parts["perceptual"] = perceptual(ctx.frozen["perceptual"], y, x, settings["perceptual_side"])
            return sum(settings[name] * part for name, part in parts.items()), parts

        def unconvincing(y):
            return objective.fool(judge(params, y)).mean((1, 2))

        y = net.draw(own, found.vectors)
        loss, metrics = unlike(y)
        metrics = {**metrics, **found.metrics, "quantizer": found.loss}
        loss = loss + settings["quantizer"] * found.loss
        if game and ctx.train:
            draw, kernel = of_last_layer(net, own, found.vectors)
            weight = balance(lambda k: unlike(draw(k))[0].mean(), lambda k: unconvincing(draw(k)).mean(), kernel, axis_name)
            weight = jnp.where(ctx.step >= settings["start"], settings["adversarial"] * weight, 0.0)
            loss = loss + weight * unconvincing(y)
            metrics["adversarial_weight"] = jnp.full(len(x), weight)
        return loss, (found.extra, metrics)

    def discriminator_loss(params, ctx: Context):
        """Pictures against their reconstructions; `accuracy` is that of pairs, each judged by the mean over its patches."""
        x = to_unit(ctx.batch["image"])
        y = net.draw(params["model"], net.quantize(params["model"], ctx.extra, x, ctx.keys).vectors)
        real, fake = judge(params, x), judge(params, y)
        loss = (objective.real(real).mean((1, 2)) + objective.fake(fake).mean((1, 2))) * (ctx.step >= settings["start"])
        real, fake = real.mean((1, 2)), fake.mean((1, 2))
        return loss, (ctx.extra, {"accuracy": real > fake, "real_logit": real, "fake_logit": fake})

    return Family(
        init=init,
        losses={"model": model_loss} | ({"discriminator": discriminator_loss} if game else {}),
        abilities=make_abilities(net),
        settings={"sample": {}},
        make_frozen=lambda source: {"perceptual": efficientnet_lite0.make().weights} if settings["perceptual"] else {},
        ranked=not game,
        warn=warn,
    )


def check(settings) -> None:
    """ValueError for settings (VQGAN) that mean nothing."""
    for name in ("l1", "l2", "quantizer", "perceptual", "adversarial", "start"):
        if settings[name] < 0:
            raise ValueError(f"vqgan.{name} is {settings[name]}: it is 0 or more")
    if not settings["l1"] + settings["l2"] + settings["perceptual"]:
        raise ValueError("vqgan.l1, vqgan.l2 and vqgan.perceptual are 0: a reconstruction must be compared by one of them")


def perceptual(variables, a, b, side: int):
    """How unlike pictures a and b, float [B, H, W, 3] in [-1, 1], look to EfficientNet-Lite0: [B].

    As metrics/similarity.py measures it (arXiv 1801.03924, equation 1, without learned weights), but with a gradient, and at
    `side` px: those that the network was trained on, 224, are too many for training on a CPU.
    """

    def directions(x):
        x = jax.image.resize(127.5 * (x + 1), (len(x), side, side, 3), "bilinear", antialias=True)
        return [quantize.unit(y) for y in EfficientNetLite().apply(variables, (x - 127) / 128)["maps"]]

    return sum(jnp.square(x - y).sum(3).mean((1, 2)) for x, y in zip(directions(a), directions(b), strict=True))


def of_last_layer(net: Autoencoder, params, vectors):
    """(kernel -> pictures, kernel), that of the decoder's last layer; all else is held."""
    params, vectors = jax.lax.stop_gradient((params, vectors))
    decoder, last = params["decoder"], params["decoder"]["conv_out"]

    def draw(kernel):
        return net.draw({**params, "decoder": {**decoder, "conv_out": {**last, "kernel": kernel}}}, vectors)

    return draw, last["kernel"]


def balance(first: Callable, second: Callable, kernel, axis_name=None):
    """|gradient of first| / |gradient of second| at `kernel`, at most LARGEST (arXiv 2012.09841, equation 7); no gradient.

    first, second: kernel -> the mean [] over the batch, or over this device's part of it under `axis_name`.
    """

    def norm(loss):
        gradient = jax.grad(loss)(kernel)
        gradient = gradient if axis_name is None else jax.lax.pmean(gradient, axis_name)
        return jnp.sqrt(jnp.square(gradient).sum())

    return jax.lax.stop_gradient(jnp.minimum(norm(first) / (norm(second) + 1e-6), LARGEST))


def warn(means) -> str:
    """What to say of a codebook that collapses."""
    usage = means.get("model/usage", means.get("usage", 1.0))
    if usage < FEW:
        return f"only {usage:.1%} of the codes are in use (quantizer.kind ema revives the others in time, fsq has few to lose)"
    return ""


def make_abilities(net: Autoencoder) -> dict[str, Callable]:
    """What an autoencoder can do."""

    def encode(variables: Variables, inputs, rng=None):
        """Of inputs["image"], uint8, the codes int32 [B, N], or, if there are none, latents float [B, h, w, D]."""
        own = variables.params["model"]
        z = net.latents(own, to_unit(inputs["image"]))
        return net.codes(own, variables.extra, z) if net.size else z

    def decode(variables: Variables, inputs, rng=None):
        """Pictures uint8 [B, R, R, 3] of inputs["codes"], int [B, N], or of inputs["latent"]."""
        own = variables.params["model"]
        if not net.size:
            return from_unit(net.draw(own, inputs["latent"]))
        return from_unit(net.draw(own, net.compose(own, variables.extra, inputs["codes"])))

    def reconstruct(variables: Variables, inputs, rng=None):
        """Pictures uint8 [B, R, R, 3]: the best that a model of these codes or latents can draw."""
        return decode(variables, {"codes" if net.size else "latent": encode(variables, inputs)})

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct}


def make_codes(config) -> Codes:
    """The codes of a run of this family, `config` being that run's own; `fit` takes (Variables of that run, source).

    Raises ValueError if the run's quantizer has no codes.
    """
    net = make_autoencoder(config)
    if not net.size:
        raise ValueError(
            'this first stage has latents (quantizer.kind "kl") and no codes: train family "flow" on it, or another first '
            "stage with quantizer.kind vq, ema, fsq or lfq"
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
        fit=lambda variables, source: trained(variables),
        scales=net.scales,
        coarse=lambda frozen, codes: net.coarse(frozen["params"], frozen["extra"], codes),
    )


def make_latents(config) -> Latents:
    """The latents of a run of this family, moved and scaled to mean 0 and deviation 1 in each channel; as `make_codes`.

    Of a run that has codes they are the vectors that become codes, and do so before they are decoded.
    """
    net = make_autoencoder(config)

    def encode(frozen, image):
        return (net.latents(frozen["params"], to_unit(image)) - frozen["mean"]) / frozen["deviation"]

    def decode(frozen, latents):
        params, z = frozen["params"], latents * frozen["deviation"] + frozen["mean"]
        if net.size:
            z = net.compose(params, frozen["extra"], net.codes(params, frozen["extra"], z))
        return from_unit(net.draw(params, z))

    def fit(variables, source):
        frozen, count = trained(variables), min(len(source.captions), MEASURED)
        latents = jax.jit(lambda image: net.latents(frozen["params"], to_unit(image)))
        places = np.array_split(np.arange(count) * len(source.captions) // count, -(-count // 64))
        z = np.concatenate([np.asarray(latents(source.read(part)), np.float64) for part in places])
        mean, deviation = z.mean((0, 1, 2)), np.maximum(z.std((0, 1, 2)), 1e-6)
        return {**frozen, "mean": mean.astype(np.float32), "deviation": deviation.astype(np.float32)}

    return Latents(net.shape, encode, decode, fit)


def trained(variables: Variables) -> dict:
    """What `make_codes` and `make_latents` need of a run, as numpy arrays."""
    return jax.tree.map(np.asarray, {"params": variables.params["model"], "extra": variables.extra})
