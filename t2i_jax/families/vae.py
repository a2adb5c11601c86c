"""Variational autoencoders: a code for each picture, and pictures from codes (arXiv 1312.6114).

`config.vae` makes the variants: beta-VAE (`beta`, openreview.net/forum?id=Sy2fzU9gl), KL warm-up (arXiv 1602.02282), free bits
(arXiv 1606.04934) and the denoising VAE (`denoise`, arXiv 1511.06406). `config.text.encoder` makes it conditional.
"""

import jax
import jax.numpy as jnp

from t2i_jax.families.family import Context, Family, Variables, over, split_keys
from t2i_jax.models import likelihoods
from t2i_jax.models.layers import from_unit, to_channels, to_rgb, to_unit
from t2i_jax.models.vae import Decoder, Encoder, check
from t2i_jax.text.condition import drop_captions, make_encoder, pretrained_texts, text_or_null

VAE = {"beta": 1.0, "warmup": 0, "free_bits": 0.0, "denoise": 0.0}
SAMPLE = {"temperature": 1.0}
ACTIVE = 0.01  # nats of KL, mean over a batch, above which a unit of the code says something


def kl_from_prior(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each unit, in nats (arXiv 1312.6114, appendix B)."""
    return 0.5 * (jnp.exp(log_var) + mean**2 - 1.0 - log_var)


def draw_code(mean, log_var, keys):
    """A draw z [B, Z] from N(mean, exp(log_var)), differentiable in both; keys [B] (arXiv 1312.6114, section 2.4)."""
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    return mean + jnp.exp(0.5 * log_var) * noise


def kl_weight(step, beta: float, warmup: int):
    """The weight of the KL: it rises linearly over `warmup` steps to `beta`; the first step already has some."""
    return beta * jnp.minimum((step + 1) / (warmup + 1), 1.0)


def with_free_bits(kl, mean_kl, free: float):
    """KL [B, Z] where a unit's mean over the batch, mean_kl [Z], is at least `free` nats, and `free` elsewhere.

    Its mean over the batch is max(free, mean_kl), and so is the gradient (arXiv 1606.04934, equation 15, a group a unit).
    """
    return jnp.where(mean_kl >= free, kl, free)


def add_noise(x, keys, largest: float):
    """Pictures x [B, H, W, C] in [-1, 1] with Gaussian noise, clipped; each draws its own standard deviation uniformly
    from 0 to `largest`, in levels of 255."""

    def one(x, key):
        level, noise = jax.random.split(key)
        sigma = jax.random.uniform(level, maxval=largest / 127.5)
        return jnp.clip(x + sigma * jax.random.normal(noise, x.shape), -1.0, 1.0)

    return jax.vmap(one)(x, keys)


def between(a, b, t):
    """Codes [B, T, Z] at the times t [T] on the arcs from a [B, Z] to b [B, Z] (spherical interpolation, SIGGRAPH 1985,
    Shoemake): in many dimensions a straight line passes nearer to 0 than draws from the prior ever are. Straight where a
    and b point the same way, or opposite ways."""
    a, b, t = a[:, None], b[:, None], t[None, :, None]
    lengths = jnp.linalg.norm(a, axis=-1, keepdims=True) * jnp.linalg.norm(b, axis=-1, keepdims=True)
    angle = jnp.arccos(jnp.clip(jnp.sum(a * b, -1, keepdims=True) / jnp.maximum(lengths, 1e-12), -1.0, 1.0))
    sine = jnp.sin(angle)
    safe = jnp.where(sine > 1e-3, sine, 1.0)
    arc = (jnp.sin((1 - t) * angle) * a + jnp.sin(t * angle) * b) / safe
    return jnp.where(sine > 1e-3, arc, (1 - t) * a + t * b)


def make_networks(config, resolution: int) -> tuple[Encoder, Decoder]:
    """The two networks of `config.model`: `latent`, the fields of both, and those of the decoder.

    Raises ValueError for a resolution that they cannot make, or a net there is not.
    """
    fields = dict(config)
    latent, decoder_only = fields.pop("latent"), ("channels", "likelihood", "scale", "log_scale")
    decoder = Decoder(resolution, **fields)
    check(decoder.net, decoder.multipliers, resolution)  # so that a wrong size is found before anything is built
    encoder = Encoder(latent, **{name: value for name, value in fields.items() if name not in decoder_only})
    return encoder, decoder


def make(config, axis_name=None) -> Family:
    """Fields used: data.resolution, text.*, model.* (those of `make_networks`), vae.* (over VAE), caption_dropout, sample.*
    (over SAMPLE).

    Raises ValueError for an unknown field of vae or sample or an unknown likelihood, and as `make_networks` does.
    """
    name, settings = config.text.encoder, over(VAE, config.get("vae", {}), "vae")
    text_encoder = make_encoder(config.text)
    encoder, decoder = make_networks(config.model, config.data.resolution)
    likelihood = likelihoods.load(decoder.likelihood)

    def init(rng, batch):
        rng_text, rng_encoder, rng_decoder = jax.random.split(rng, 3)
        text, condition = text_encoder.init(rng_text, batch["text"][name]["tokens"].shape[1])
        x = jnp.zeros((1, decoder.resolution, decoder.resolution, decoder.channels))
        networks = {
            "encoder": encoder.init(rng_encoder, x, condition)["params"],
            "decoder": decoder.init(rng_decoder, jnp.zeros((1, encoder.latent)), condition)["params"],
        }
        return {"model": {"text": text, **networks}}, {}

    def encode_text(params, frozen, text, keys=None):
        return text_encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def posterior(params, x, condition):
        return encoder.apply({"params": params["model"]["encoder"]}, x, condition)

    def pixels(params, z, condition):
        return decoder.apply({"params": params["model"]["decoder"]}, z, condition)

    def loss(params, ctx: Context):
        """The negative evidence lower bound of a picture in nats, its KL weighted by `kl_weight` and under free bits.

        Metrics: reconstruction and kl in nats and their sum as bits_per_dimension, all as they are; active_units.
        """
        drop_keys, dropout_keys, noise_keys, code_keys = split_keys(ctx.keys, 4)
        text, weight = ctx.batch["text"][name], settings["beta"]
        if ctx.train:
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
            weight = kl_weight(ctx.step, weight, settings["warmup"])
        condition = encode_text(params, ctx.frozen, text, dropout_keys if ctx.train else None)
        x = to_channels(to_unit(ctx.batch["image"]), decoder.channels)
        seen = add_noise(x, noise_keys, settings["denoise"]) if settings["denoise"] else x
        mean, log_var = posterior(params, seen, condition)
        of_pixels = pixels(params, draw_code(mean, log_var, code_keys), condition)
        reconstruction = -jnp.sum(likelihood.log_prob(x, *of_pixels), axis=(1, 2, 3))
        kl = kl_from_prior(mean, log_var)
        mean_kl = kl.mean(0) if axis_name is None else jax.lax.pmean(kl.mean(0), axis_name)
        total = kl.sum(1)
        metrics = {
            "reconstruction": reconstruction,
            "kl": total,
            "bits_per_dimension": likelihoods.bits_per_dimension(likelihood, reconstruction + total, x[0].size),
            "active_units": jnp.full(total.shape, jnp.sum(mean_kl > ACTIVE, dtype=jnp.float32)),
        }
        return reconstruction + weight * with_free_bits(kl, mean_kl, settings["free_bits"]).sum(1), (ctx.extra, metrics)

    def condition_of(variables: Variables, inputs, count: int):
        return encode_text(variables.params, variables.frozen, text_or_null(inputs, variables.frozen, name, count))

    def posterior_of(variables: Variables, image, condition):
        return posterior(variables.params, to_channels(to_unit(image), decoder.channels), condition)

    def picture_of(variables: Variables, z, condition):
        return from_unit(to_rgb(likelihood.picture(pixels(variables.params, z, condition).location)))

    return Family(
        init=init,
        losses={"model": loss},
        abilities=make_abilities(encoder.latent, condition_of, posterior_of, picture_of),
        settings={"sample": over(SAMPLE, config.get("sample", {}), "sample")},
        pretrained=pretrained_texts(text_encoder),
    )


def make_abilities(latent: int, condition_of, posterior_of, picture_of) -> dict:
    """What can be done with a code of `latent` numbers. Inputs may have "text"; without, they are of the empty caption.

    condition_of: (variables, inputs, count) -> TextCondition.   posterior_of: (variables, uint8 pictures, condition) ->
    (mean, log_var), each [B, Z].   picture_of: (variables, z [B, Z], condition) -> uint8 [B, H, W, 3].
    """

    def sample(variables: Variables, inputs, keys, *, temperature):
        """Pictures uint8 [B, H, W, 3], the expected pixels of codes drawn from the prior, `temperature` its deviation."""
        z = temperature * jax.vmap(lambda key: jax.random.normal(key, (latent,)))(keys)
        return picture_of(variables, z, condition_of(variables, inputs, len(keys)))

    def encode(variables: Variables, inputs, rng=None):
        """Codes float [B, Z] of inputs["image"], uint8: the posterior's mean or, with keys rng [B], draws from it."""
        image = inputs["image"]
        mean, log_var = posterior_of(variables, image, condition_of(variables, inputs, len(image)))
        return mean if rng is None else draw_code(mean, log_var, rng)

    def decode(variables: Variables, inputs, rng=None):
        """Pictures uint8 [B, H, W, 3] of inputs["latent"], float [B, Z]."""
        return picture_of(variables, inputs["latent"], condition_of(variables, inputs, len(inputs["latent"])))

    def reconstruct(variables: Variables, inputs, rng=None):
        """The pictures of the codes of inputs["image"]: of their means, or of draws with keys rng [B]."""
        return decode(variables, {**inputs, "latent": encode(variables, inputs, rng)})

    def interpolate(variables: Variables, inputs, rng=None, *, steps: int = 8):
        """Pictures uint8 [B, steps, H, W, 3] on the way from inputs["image"] to inputs["image_b"], both included."""
        ends = [encode(variables, {**inputs, "image": inputs[end]}) for end in ("image", "image_b")]
        way = jnp.moveaxis(between(*ends, jnp.linspace(0.0, 1.0, steps)), 1, 0)
        return jnp.stack([decode(variables, {**inputs, "latent": z}) for z in way], axis=1)

    return {"sample": sample, "encode": encode, "decode": decode, "reconstruct": reconstruct, "interpolate": interpolate}
