"""A variational autoencoder whose decoder is a generator, and whose reconstructions are judged in the features of the
discriminator (arXiv 1512.09300): the players of families/gan.py and an encoder of families/vae.py."""

import jax
import jax.numpy as jnp

from t2i_jax.families import gan, vae
from t2i_jax.families.family import Context, Family, Variables, fold_in_each, over, split_keys
from t2i_jax.models.layers import from_unit, to_channels, to_rgb, to_unit
from t2i_jax.models.vae import Encoder, check
from t2i_jax.text.condition import make_encoder, pretrained_texts, text_or_null

VAE_GAN = {"beta": 1.0, "warmup": 0, "likeness": 1.0}
SAMPLE = {"temperature": 1.0}
RECONSTRUCTION = 2**29  # folded into the keys: what is reconstructed has other random numbers than what is drawn


def make(config, axis_name=None) -> Family:
    """Fields used: those of `gan.make_game`; encoder.* (of models.vae.Encoder, but `latent`), vae_gan.* (over VAE_GAN: the
    KL's weight and warm-up, and the weight of likeness in the generator's loss) and sample.* (over SAMPLE).

    Raises ValueError for an unknown field of these, and as `make_game` does.
    """
    game, name = gan.make_game(config, axis_name), config.text.encoder
    settings, text_encoder = over(VAE_GAN, config.get("vae_gan", {}), "vae_gan"), make_encoder(config.text)
    encoder = Encoder(game.generator.latent, **config.encoder)
    check(encoder.net, encoder.multipliers, config.data.resolution)

    def init(rng, batch):
        params, extra = game.init(jax.random.fold_in(rng, 0), batch)
        rng_text, rng_net = jax.random.split(jax.random.fold_in(rng, 1))
        text, condition = text_encoder.init(rng_text, batch["text"][name]["tokens"].shape[1])
        x = jnp.zeros((1, config.data.resolution, config.data.resolution, game.generator.channels))
        return {**params, "encoder": {"text": text, "net": encoder.init(rng_net, x, condition)["params"]}}, extra

    def posterior(params, x, condition):
        return encoder.apply({"params": params["encoder"]["net"]}, x, condition)

    def decoded(params, stats, z, condition, keys, train):
        w = game.generator.apply({"params": params["generator"]["net"]}, z, condition, method="map")
        return game.synthesize(params, stats, w, condition, keys, train)

    def reconstructed(params, ctx: Context):
        """(logits of the reconstructions, how unlike the pictures they are [B], KL [B], statistics)."""
        text_keys, code_keys, draw_keys, shown_keys = split_keys(fold_in_each(ctx.keys, RECONSTRUCTION), 4)
        text, keys = game.captions(ctx, text_keys)
        conditions = {player: game.hear(params, ctx.frozen, player, text, keys) for player in params}
        real = to_channels(to_unit(ctx.batch["image"]), game.generator.channels)
        mean, log_var = posterior(params, real, conditions["encoder"])
        z = vae.draw_code(mean, log_var, code_keys)
        fake, stats = decoded(params, ctx.extra["stats"], z, conditions["generator"], draw_keys, ctx.train)

        def judge(x):  # both shown alike, so that their features can be compared
            return game.judge(params, stats, game.shown(x, shown_keys, ctx), conditions["discriminator"], ctx.train)

        (logits, features, _), (_, true, _) = judge(fake), judge(real)
        unlike = 0.5 * jnp.square(features - true).reshape(len(real), -1).sum(1)  # equation 7, unit variance
        return logits, unlike, vae.kl_from_prior(mean, log_var).sum(1), stats

    def encoder_loss(params, ctx: Context):
        """KL from the prior, and how unlike the pictures their reconstructions are."""
        _, unlike, kl, _ = reconstructed(params, ctx)
        weight = vae.kl_weight(ctx.step, settings["beta"], settings["warmup"]) if ctx.train else settings["beta"]
        return unlike + weight * kl, (ctx.extra, {"unlikeness": unlike, "kl": kl})

    def generator_loss(params, ctx: Context):
        """That of the game, the same of reconstructions, and their unlikeness."""
        loss, (extra, metrics) = game.losses["generator"](params, ctx)
        logits, unlike, _, stats = reconstructed(params, ctx._replace(extra=extra))
        loss = loss + game.objective.fool(logits) + settings["likeness"] * unlike
        return loss, ({**extra, "stats": stats}, metrics)

    def discriminator_loss(params, ctx: Context):
        """That of the game, and reconstructions as fakes."""
        loss, (extra, metrics) = game.losses["discriminator"](params, ctx)
        return loss + game.objective.fake(reconstructed(params, ctx)[0]), (extra, metrics)

    def condition_of(variables: Variables, inputs, count: int):
        text = text_or_null(inputs, variables.frozen, name, count)
        hear = game.hear
        return {player: hear(variables.params, variables.frozen, player, text) for player in ("encoder", "generator")}

    def posterior_of(variables: Variables, image, conditions):
        return posterior(variables.params, to_channels(to_unit(image), game.generator.channels), conditions["encoder"])

    def picture_of(variables: Variables, z, conditions):
        keys = jax.vmap(jax.random.key)(jnp.zeros(len(z), jnp.uint32))  # noise of a network that has any: always the same
        stats = variables.extra["stats"]
        return from_unit(to_rgb(decoded(variables.params, stats, z, conditions["generator"], keys, False)[0]))

    return Family(
        init=init,
        losses={"encoder": encoder_loss, "generator": generator_loss, "discriminator": discriminator_loss},
        abilities=vae.make_abilities(game.generator.latent, condition_of, posterior_of, picture_of),
        settings={"sample": over(SAMPLE, config.get("sample", {}), "sample")},
        pretrained=pretrained_texts(text_encoder),
        updates={"discriminator": game.settings["discriminator_steps"]},
        ranked=False,
        warn=gan.warn,
    )
