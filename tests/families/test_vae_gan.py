"""VAE-GAN: what each loss adds to that of the game, and that codes lead back to pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.adversarial.losses import make_losses
from t2i_jax.core.family import Context, Variables
from t2i_jax.families import gan, vae_gan
from t2i_jax.families.game import make_game
from tests.families.test_gan import FROZEN, batch_of, config_of


def config_with(**settings):
    config = config_of()
    config.encoder = {"net": "dense", "width": 16, "multipliers": (1,), "hidden": 16}
    config.vae_gan = settings
    return ConfigDict(config)


@functools.cache
def evaluated(player, **settings):
    """(loss [B], metrics) of one player of a fresh family, and of the game alone."""
    config = config_with(**settings)
    family, of_game = vae_gan.make(config), gan.make_player_losses(make_game(config))
    params, extra = started()
    keys = jax.random.split(jax.random.key(1), 4)

    @jax.jit
    def losses(params, extra):
        ctx = Context(extra, FROZEN, None, 0, batch_of(), keys)
        loss, (_, metrics) = family.losses[player](params, ctx)
        return loss, metrics, of_game[player](params, ctx)[0] if player in of_game else 0.0

    return losses(params, extra)


@functools.cache
def started():
    return jax.jit(vae_gan.make(config_with()).init)(jax.random.key(0), batch_of())


def test_the_encoders_loss_is_difference_plus_kl():
    loss, metrics, _ = evaluated("encoder", beta=0.5, warmup=1)
    half = 0.5 * 0.5  # of the warm-up's two steps
    np.testing.assert_allclose(loss, metrics["unlikeness"] + half * metrics["kl"], rtol=1e-6)
    assert (metrics["kl"] > 0).all() and (metrics["unlikeness"] > 0).all()


def test_the_generators_loss_includes_the_difference():
    """Its weight is `likeness`. Without it, what remains is the cost of failing to fool."""
    with_likeness, without = (evaluated("generator", likeness=weight) for weight in (2.0, 0.0))
    unlike = evaluated("encoder")[1]["unlikeness"]
    np.testing.assert_allclose(with_likeness[0] - without[0], 2.0 * unlike, rtol=1e-4)
    fool = without[0] - without[2]
    assert (fool > 0).all() and (fool < 5).all()


def test_reconstructions_are_fakes_to_the_discriminator():
    loss, _, game = evaluated("discriminator")
    fooled = evaluated("generator", likeness=0.0)
    # The losses are softplus(x) and softplus(-x): their difference is the logit x.
    logit = (loss - game) - (fooled[0] - fooled[2])
    np.testing.assert_allclose(make_losses("nonsaturating").fake(logit), loss - game, rtol=1e-4)


def test_every_part_of_a_player_has_a_gradient():
    family, (params, extra) = vae_gan.make(config_with()), started()

    @jax.jit
    def gradients(params):
        ctx = Context(extra, FROZEN, None, 0, batch_of(), jax.random.split(jax.random.key(1), 4))

        def of(player):
            return jax.grad(
                lambda own: family.losses[player]({**params, player: own}, ctx)[0].mean()
            )(params[player])

        return {player: of(player) for player in family.losses}

    for player, tree in gradients(params).items():
        assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(tree["net"])) > 0, player


def test_a_size_that_the_encoder_cannot_halve_is_refused():
    config = config_with()
    config.encoder = {"net": "conv", "multipliers": (1, 1, 1, 1), "width": 4}
    with pytest.raises(ValueError, match="must be a multiple of 16"):
        vae_gan.make(config)


def test_a_relativistic_loss_is_refused():
    config = config_with()
    config.gan.loss = "relativistic"
    with pytest.raises(ValueError, match="without a real picture beside each; it can be minimax"):
        vae_gan.make(config)


def test_the_ends_of_an_interpolation_are_reconstructions():
    family, (params, extra) = vae_gan.make(config_with()), started()
    variables, images = Variables(params, extra, FROZEN), batch_of()["image"]
    able = family.abilities
    way = jax.jit(
        lambda v: able["interpolate"](v, {"image": images, "image_b": images[::-1]}, steps=3)
    )(variables)
    again = jax.jit(lambda v: able["reconstruct"](v, {"image": images}))(variables)
    assert abs(np.asarray(way)[:, 0].astype(int) - again).max() <= 1
    assert abs(np.asarray(way)[:, 2].astype(int) - np.asarray(again)[::-1]).max() <= 1
