"""VAE-GAN: a variational autoencoder whose decoder is the generator of a GAN (arXiv 1512.09300).

Its reconstructions are compared in the features of the discriminator. The players are those of
families/gan.py, and an encoder as in families/vae.py.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.adversarial.losses import ABSOLUTE
from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_channels, to_rgb, to_unit
from t2i_jax.core.random import derive_keys, split_keys
from t2i_jax.families import gan, latent_abilities, vae
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.families.game import Game, game_fields, make_game
from t2i_jax.models.vae import NETS, Encoder, check

VAE_GAN_FIELDS = {
    "beta": Field(1.0, "weight of the KL divergence from the prior", 0.0),
    "warmup": Field(0, "steps over which that weight rises to `beta`", 0),
    "likeness": Field(
        1.0, "weight of the difference of reconstructions in the generator's loss", 0.0
    ),
}
# Folded into the keys, so that reconstructions use other random numbers than drawn pictures.
RECONSTRUCTION_KEYS = 2**29


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        **game_fields(config),
        "encoder": network_fields(Encoder, choices={"net": NETS}),
        "vae_gan": VAE_GAN_FIELDS,
        "sample": vae.SAMPLE_FIELDS,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution, text and train.steps.

    Raises ValueError for an unknown field of these, for a relativistic loss, and as `make_game`
    does.
    """
    game = make_game(config, axis_name)
    if game.objective.relative:
        raise ValueError(
            "gan.loss = 'relativistic': family 'vae_gan' judges reconstructions without a real "
            f"picture beside each; it can be {', '.join(ABSOLUTE)}"
        )
    settings = read_section(config, "vae_gan", VAE_GAN_FIELDS)
    encoder = Encoder(game.generator.latent, **config.get("encoder", {}))
    check(encoder.net, encoder.multipliers, config.data.resolution)
    game_losses, reconstruct = gan.make_player_losses(game), make_reconstruct(game, encoder)

    def init(rng, batch):
        params, extra = game.init(jax.random.fold_in(rng, 0), batch)
        rng_text, rng_net = jax.random.split(jax.random.fold_in(rng, 1))
        text, condition = game.conditioning.init(rng_text, batch)
        x = jnp.zeros((1, config.data.resolution, config.data.resolution, game.generator.channels))
        net = encoder.init(rng_net, x, condition)["params"]
        return {**params, "encoder": {"text": text, "net": net}}, extra

    def encoder_loss(params, ctx: Context):
        """Return the weighted KL from the prior, plus the difference of reconstructions."""
        _, difference, kl, _ = reconstruct(params, ctx)
        beta = settings["beta"]
        weight = vae.kl_weight(ctx.step, beta, settings["warmup"]) if ctx.train else beta
        return difference + weight * kl, (ctx.extra, {"unlikeness": difference, "kl": kl})

    def generator_loss(params, ctx: Context):
        """Return the game's loss, the same for reconstructions, and their difference."""
        loss, (extra, metrics) = game_losses["generator"](params, ctx)
        logits, difference, _, stats = reconstruct(params, ctx._replace(extra=extra))
        loss = loss + game.objective.fool(logits) + settings["likeness"] * difference
        return loss, ({**extra, "stats": stats}, metrics)

    def discriminator_loss(params, ctx: Context):
        """Return the game's loss, with reconstructions as further fakes."""
        loss, (extra, metrics) = game_losses["discriminator"](params, ctx)
        return loss + game.objective.fake(reconstruct(params, ctx)[0]), (extra, metrics)

    return Family(
        init=init,
        losses={
            "encoder": encoder_loss,
            "generator": generator_loss,
            "discriminator": discriminator_loss,
        },
        abilities=make_abilities(game, encoder),
        settings={
            "sample": read_section(config, "sample", vae.SAMPLE_FIELDS),
            "interpolate": latent_abilities.INTERPOLATE,
        },
        static=("steps",),
        pretrained=game.conditioning.pretrained,
        updates={"discriminator": game.settings["discriminator_steps"]},
        lower_loss_is_better=False,
        warn=gan.warn,
    )


def make_reconstruct(game: Game, encoder: Encoder) -> Callable:
    """Return reconstruct(params, ctx) -> (logits, difference, KL, stats), the first three [B].

    logits: the discriminator's, of the reconstructions of the batch.
    difference: of pictures and reconstructions, in the discriminator's features (equation 7, with
        unit variance).
    """

    def reconstruct(params, ctx: Context):
        keys = derive_keys(ctx.keys, RECONSTRUCTION_KEYS)
        text_keys, code_keys, draw_keys, augment_keys = split_keys(keys, 4)
        text, dropout_keys = game.captions(ctx, text_keys)
        conditions = {
            player: game.encode_text(params, ctx.frozen, player, text, dropout_keys)
            for player in params
        }
        real = game.real(ctx)
        mean, log_var = posterior(encoder, params, real, conditions["encoder"])
        z = vae.draw_code(mean, log_var, code_keys)
        fake, stats = decode(
            game, params, ctx.extra["stats"], z, conditions["generator"], draw_keys, ctx.train
        )

        def judge(x):
            # Both are augmented in the same way, so that their features can be compared.
            x = game.augment(x, augment_keys, ctx)
            return game.judge(params, stats, x, conditions["discriminator"], ctx.train)

        (logits, features, _), (_, real_features, _) = judge(fake), judge(real)
        squares = jnp.square(features - real_features).reshape(len(real), -1)
        return logits, 0.5 * squares.sum(1), vae.kl_from_prior(mean, log_var).sum(1), stats

    return reconstruct


def make_abilities(game: Game, encoder: Encoder) -> dict[str, Callable]:
    """Return the abilities: those of a VAE."""

    def encode_text(variables: Variables, inputs, count: int):
        text = game.conditioning.of_inputs(inputs, variables.frozen, count)
        return {
            player: game.encode_text(variables.params, variables.frozen, player, text)
            for player in ("encoder", "generator")
        }

    def posterior_of(variables: Variables, image, conditions):
        x = to_channels(to_unit(image), game.generator.channels)
        return posterior(encoder, variables.params, x, conditions["encoder"])

    def draw(variables: Variables, z, conditions):
        # The same keys always: they are for networks that add noise.
        keys = jax.vmap(jax.random.key)(jnp.zeros(len(z), jnp.uint32))
        stats, condition = variables.extra["stats"], conditions["generator"]
        x, _ = decode(game, variables.params, stats, z, condition, keys, False)
        return from_unit(to_rgb(x))

    return vae.make_abilities(game.generator.latent, encode_text, posterior_of, draw)


def posterior(encoder: Encoder, params, x, condition) -> Any:
    """Return (mean, log_var) of the codes of pictures x, each [B, Z]."""
    return encoder.apply({"params": params["encoder"]["net"]}, x, condition)


def decode(game: Game, params, stats, z, condition, keys, train: bool):
    """Return the pictures of codes z [B, Z], and the statistics after drawing them."""
    generator = {"params": params["generator"]["net"]}
    w = game.generator.apply(generator, z, condition, method="map")
    return game.synthesize(params, stats, w, condition, keys, train)
