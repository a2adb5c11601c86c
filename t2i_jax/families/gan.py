"""Generative adversarial networks (arXiv 1406.2661), conditioned on text (1411.1784, 1605.05396).

The networks are those of a file of models/ (families/game.py); objectives and penalties are those
of adversarial/.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.adversarial.penalties import gradient_penalty, path_length, r1
from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_rgb
from t2i_jax.core.random import derive_keys, split_keys
from t2i_jax.core.types import AnyArray
from t2i_jax.families.config_fields import read_section
from t2i_jax.families.game import Game, game_fields, make_game

SAMPLE_FIELDS = {
    "truncation": Field(1.0, "how far w may be from its mean (arXiv 1812.04948, appendix B)", 0.0)
}
RUNNING_MEAN_DECAY = 0.99  # of w and of path lengths
# Folded into the keys, so that the generator is trained on other random numbers than the
# discriminator.
GENERATOR_KEYS = 2**30
# Of `warn`: the discriminator's accuracy, the difference of its mean logits of real and of drawn
# pictures, and the diversity of drawn pictures relative to real ones.
DISCRIMINATOR_WINS_ABOVE = 0.98
LOGIT_GAP_TOO_LARGE = 100.0
COLLAPSED_BELOW = 0.3


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {**game_fields(config), "sample": SAMPLE_FIELDS}


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution, text and train.steps.

    Raises ValueError as `make_game` does, and for an unknown field of sample.
    """
    game = make_game(config, axis_name)
    return Family(
        init=game.init,
        losses=make_player_losses(game),
        abilities={"sample": make_sample(game)},
        settings={"sample": read_section(config, "sample", SAMPLE_FIELDS)},
        pretrained=game.conditioning.pretrained,
        updates={"discriminator": game.settings["discriminator_steps"]},
        lower_loss_is_better=False,
        warn=warn,
    )


def make_player_losses(game: Game) -> dict[str, Callable]:
    """Return {player: loss} of a game, in the order of update."""
    return {
        "discriminator": make_discriminator_loss(game),
        "generator": make_generator_loss(game),
    }


def make_discriminator_loss(game: Game) -> Callable:
    """Return the discriminator's loss."""
    settings, objective, axis_name = game.settings, game.objective, game.axis_name

    def loss(params, ctx: Context):
        """Return the loss of telling real pictures from drawn ones and from mismatched ones.

        The metric `accuracy` says how often a real picture's logit is above a drawn one's.
        """
        text_keys, w_keys, draw_keys, real_keys, fake_keys, place_keys = split_keys(ctx.keys, 6)
        text, condition, own_condition = encode_for_both(game, params, ctx, text_keys)
        w = game.draw_w(params, condition, w_keys, settings["style_mixing"])
        fake, _ = game.synthesize(params, ctx.extra["stats"], w, condition, draw_keys, ctx.train)
        fake = game.augment(fake, fake_keys, ctx)
        real = game.augment(game.real(ctx), real_keys, ctx)
        stats = ctx.extra["stats"]
        real_logits, _, stats = game.judge(params, stats, real, own_condition, ctx.train)
        fake_logits, _, stats = game.judge(params, stats, fake, own_condition, ctx.train)
        if objective.relative:
            total = objective.real(real_logits - fake_logits)
        else:
            total = objective.real(real_logits) + objective.fake(fake_logits)
        metrics = {
            "accuracy": real_logits > fake_logits,
            "real_logit": real_logits,
            "fake_logit": fake_logits,
        }
        if settings["mismatch"]:
            null = game.conditioning.null(ctx.frozen)["tokens"]
            other, wrong = most_alike(text["tokens"], null, axis_name)
            other_condition = of_others(own_condition, other, axis_name)
            wrong_logits, *_ = game.judge(params, stats, real, other_condition, ctx.train)
            if objective.relative:
                mismatch = objective.real(real_logits - wrong_logits)
            else:
                mismatch = objective.fake(wrong_logits)
            total = total + settings["mismatch"] * wrong * mismatch
            metrics["caption_accuracy"] = real_logits > wrong_logits
        if ctx.train:

            def logits_of(x):
                return game.judge(params, stats, x, own_condition, True)[0]

            if settings["gradient_penalty"]:
                penalty = gradient_penalty(logits_of, real, fake, place_keys)
                total = total + settings["gradient_penalty"] * penalty
            for weight, x in ((settings["r1"], real), (settings["r2"], fake)):
                if weight:
                    penalty = lazily(
                        settings["r1_every"], ctx.step, functools.partial(r1, logits_of, x)
                    )
                    total = total + weight * penalty
        return total, ({**ctx.extra, "stats": stats}, metrics)

    return loss


def make_generator_loss(game: Game) -> Callable:
    """Return the generator's loss."""
    settings, axis_name = game.settings, game.axis_name

    def loss(params, ctx: Context):
        """Return how little the discriminator is fooled, and the path length penalty."""
        keys = derive_keys(ctx.keys, GENERATOR_KEYS)
        text_keys, w_keys, draw_keys, fake_keys, real_keys, path_keys = split_keys(keys, 6)
        _, condition, own_condition = encode_for_both(game, params, ctx, text_keys)
        w = game.draw_w(params, condition, w_keys, settings["style_mixing"])
        stats = ctx.extra["stats"]
        fake, stats = game.synthesize(params, stats, w, condition, draw_keys, ctx.train)
        fake = game.augment(fake, fake_keys, ctx)
        logits, *_ = game.judge(params, stats, fake, own_condition, ctx.train)
        if game.objective.relative:
            real = game.augment(game.real(ctx), real_keys, ctx)
            logits = logits - game.judge(params, stats, real, own_condition, ctx.train)[0]
        total, extra = game.objective.fool(logits), {**ctx.extra, "stats": stats}
        if ctx.train:
            extra["w"] = running_mean(extra["w"], w[:, 0], axis_name)
            if settings["path_length"]:

                def synthesize(w):
                    return game.synthesize(params, stats, w, condition, draw_keys, True)[0]

                def penalty_and_lengths():
                    return path_length(synthesize, w, path_keys, ctx.extra["path_length"])

                every = settings["path_every"]
                penalty, lengths = lazily(every, ctx.step, penalty_and_lengths)
                total = total + settings["path_length"] * penalty
                lengths = jax.lax.stop_gradient(lengths) / every
                mean = running_mean(extra["path_length"], lengths, axis_name)
                extra["path_length"] = jnp.where(ctx.step % every == 0, mean, extra["path_length"])
        return total, (extra, {})

    return loss


def encode_for_both(game: Game, params, ctx: Context, keys):
    """Return (the text of the batch, the generator's condition, the discriminator's)."""
    text, dropout_keys = game.captions(ctx, keys)
    conditions = (
        game.encode_text(params, ctx.frozen, player, text, dropout_keys)
        for player in ("generator", "discriminator")
    )
    return text, *conditions


def make_sample(game: Game) -> Callable:
    """Return the ability `sample`."""

    def sample(variables: Variables, inputs, keys, *, truncation):
        """Draw pictures uint8 [B, R, R, 3].

        truncation: below 1 it moves w towards its mean (arXiv 1812.04948, appendix B).
        """
        params, frozen, mean = variables.params, variables.frozen, variables.extra["w"]
        text = game.conditioning.text_of(inputs)
        condition = game.encode_text(params, frozen, "generator", text)
        w_keys, draw_keys = split_keys(keys, 2)
        w = mean + truncation * (game.draw_w(params, condition, w_keys) - mean)
        stats = variables.extra["stats"]
        return from_unit(to_rgb(game.synthesize(params, stats, w, condition, draw_keys, False)[0]))

    return sample


def lazily(every: int, step, penalty: Callable):
    """Return `every` times what penalty() returns, at every `every`-th step, and else zeros.

    Source: arXiv 1912.04958, section 3.1.
    """
    if every == 1:
        return penalty()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(penalty))
    return jax.lax.cond(
        step % every == 0, lambda: jax.tree.map(lambda x: every * x, penalty()), lambda: zeros
    )


def most_alike(
    tokens: Int[AnyArray, "B L"], null: Int[AnyArray, "L"], axis_name: str | None
) -> tuple[Int[AnyArray, "B"], Bool[AnyArray, "B"]]:
    """Return, for each caption, the place in the global batch of the wrong one that is most alike.

    That one has the most equal tokens; of several, the next in the batch. Captions that are equal
    or empty (null) are not wrong. Returns (places, whether any caption is wrong).
    """
    whole = gather(tokens, axis_name)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(tokens)
    equal = tokens[:, None] == whole
    wrong = ~equal.all(-1) & (whole != null).any(-1)
    distance = (jnp.arange(len(whole)) - first - jnp.arange(len(tokens))[:, None]) % len(whole)
    likeness = jnp.where(wrong, equal.sum(-1) - distance / len(whole), -jnp.inf)
    return likeness.argmax(-1), wrong.any(-1)


def of_others(tree, places: Int[AnyArray, "B"], axis_name: str | None):
    """Return what the examples at `places` of the global batch have. Leaves are [B, ...]."""
    return jax.tree.map(lambda x: gather(x, axis_name)[places], tree)


def gather(x, axis_name: str | None):
    """Return the global batch of x [B, ...]."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def running_mean(
    mean: Float[Array, "*shape"], values: Float[Array, "B *shape"], axis_name: str | None
) -> Float[Array, "*shape"]:
    """Return the running mean after a batch of `values`."""
    now = jax.lax.stop_gradient(values).mean(0)
    now = now if axis_name is None else jax.lax.pmean(now, axis_name)
    return RUNNING_MEAN_DECAY * mean + (1.0 - RUNNING_MEAN_DECAY) * now


def warn(means: Mapping[str, float]) -> str:
    """Return a warning if one player wins the game, else ""; see `Family.warn`."""
    if means.get("discriminator/accuracy", 0.0) > DISCRIMINATOR_WINS_ABOVE:
        return (
            "the discriminator diverges from the generator: it tells more than "
            f"{DISCRIMINATOR_WINS_ABOVE:.0%} of drawn pictures from real ones; gan.r1, gan.augment "
            "or a lower learning rate in optim.players.discriminator may help"
        )
    real, fake = (means.get(f"discriminator/{name}_logit", 0.0) for name in ("real", "fake"))
    if abs(real - fake) > LOGIT_GAP_TOO_LARGE:
        return (
            "the discriminator diverges: its logits of real and of drawn pictures are more than "
            f"{LOGIT_GAP_TOO_LARGE:g} apart"
        )
    if means.get("score/diversity", 1.0) < COLLAPSED_BELOW:
        return (
            f"mode collapse: drawn pictures differ less than {COLLAPSED_BELOW} times as much as "
            "real ones do (score/diversity)"
        )
    return ""
