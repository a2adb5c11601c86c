"""The game of a GAN: two players, their networks and what they do with one another.

families/gan.py and families/vae_gan.py train them. A file of models/ gives the networks of both
players (`make_players`); objectives are those of adversarial/. Nothing here depends on which
networks they are. A generator without a mapping network has a `map` that returns its latent vector
unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.adversarial.diff_augment import apply_policy, parse_policy
from t2i_jax.adversarial.losses import NAMES, Adversarial, make_losses
from t2i_jax.core.family import Context
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import to_channels, to_unit
from t2i_jax.core.random import derive_keys, draw_normal, split_keys
from t2i_jax.core.registry import lookup
from t2i_jax.families.conditioning import Conditioning, make_conditioning
from t2i_jax.families.config_fields import network_fields, read_section
from t2i_jax.models import dcgan

NETWORK_FIELD = Field("dcgan", "both players' networks: a file of models/")
GAN_FIELDS = {
    "loss": Field("nonsaturating", "objective of both players", choices=NAMES),
    "smoothing": Field(0.0, "what is taken from the target 1 of real pictures", 0.0, 0.499),
    "mismatch": Field(
        0.0,
        "weight of real pictures with other captions, as fakes (arXiv 1605.05396, algorithm 1)",
        0.0,
    ),
    "discriminator_steps": Field(1, "its updates in a step, each on other pictures", 1),
    "instance_noise": Field(
        0.0,
        "standard deviation of noise on the discriminator's pictures; it falls to 0 over the run "
        "(arXiv 1610.04490)",
        0.0,
    ),
    "augment": Field(
        "",
        "how the discriminator's pictures are augmented (arXiv 2006.10738), such as "
        "'colour,translation,cutout'; see adversarial/diff_augment.py",
    ),
    "gradient_penalty": Field(0.0, "weight of the gradient penalty (arXiv 1704.00028)", 0.0),
    "r1": Field(0.0, "weight of the R1 penalty (arXiv 1801.04406)", 0.0),
    "r2": Field(0.0, "weight of the same penalty at drawn pictures (the same, section 4.1)", 0.0),
    "r1_every": Field(
        1,
        "apply both only every so many steps, that many times as strongly (arXiv 1912.04958, "
        "section 3.1)",
        1,
    ),
    "path_length": Field(0.0, "weight of path length regularization (arXiv 1912.04958)", 0.0),
    "path_every": Field(1, "the same as r1_every for path lengths", 1),
    "style_mixing": Field(
        0.0,
        "probability that a picture has two latent vectors (arXiv 1812.04948, section 3.1)",
        0.0,
        1.0,
    ),
}


def game_fields(config) -> dict[str, dict[str, Field]]:
    """Return the sections "model" and "gan", for families that build on a game."""
    name = config.get("model", {}).get("network", NETWORK_FIELD.default)
    # Any resolution that every network can draw will do: nothing is built.
    generator, discriminator = lookup("models", name, "make_players")({}, 64)
    choices, leave_out = {"upsample": dcgan.UPSAMPLE, "norm": dcgan.NORMS}, ("axis_name",)
    own = network_fields(type(generator), leave_out, choices)
    if hasattr(discriminator, "norm"):
        own["norm"] = network_fields(type(discriminator), leave_out, choices)["norm"]
    return {"model": {"network": NETWORK_FIELD, **own}, "gan": GAN_FIELDS}


class Game(NamedTuple):
    """Two players and what they do; families may add to it (families/vae_gan.py).

    `params` is {player: {"text", "net"}}. `stats` is {player: batch statistics}. x is float
    [B, R, R, channels] in [-1, 1].

    settings: of GAN_FIELDS.
    objective: see adversarial/losses.py.
    generator: its network.
    conditioning: on text; each player has an encoder of its own.
    init: as `Family.init`.
    captions: (ctx, keys) -> (the text of the batch, keys for dropout). In training some captions
        are dropped; else the keys are None.
    encode_text: (params, frozen, player, text, keys=None) -> TextCondition of that player.
    draw_w: (params, condition, keys, mixing=0.0) -> w [B, layers, D]. With probability `mixing`,
        the layers from a random one on have another latent vector.
    synthesize: (params, stats, w, condition, keys, train) -> (x, stats).
    judge: (params, stats, x, condition, train) -> (logits [B], features, stats).
    augment: (x, keys, ctx) -> x as the discriminator takes it: in training, augmented and noisy.
    real: (ctx) -> the pictures of the batch.
    axis_name: of pmap, or None.
    """

    settings: Mapping[str, Any]
    objective: Adversarial
    generator: Any
    conditioning: Conditioning
    init: Callable
    captions: Callable
    encode_text: Callable
    draw_w: Callable
    synthesize: Callable
    judge: Callable
    augment: Callable
    real: Callable
    axis_name: str | None


def make_game(config, axis_name=None) -> Game:
    """Return the game of a config.

    Raises ValueError for an unknown name or field, and for a resolution that the networks cannot
    draw.
    """
    settings, conditioning = read_section(config, "gan", GAN_FIELDS), make_conditioning(config)
    objective = make_losses(settings["loss"], settings["smoothing"])
    check(settings, config)
    name = config.model.get("network", NETWORK_FIELD.default)
    make_players = lookup("models", name, "make_players")
    networks = make_players(config.model, config.data.resolution, axis_name)
    generator, discriminator = networks

    def captions(ctx: Context, keys):
        drop_keys, dropout_keys = split_keys(keys, 2)
        return conditioning.training_text(ctx, drop_keys), dropout_keys if ctx.train else None

    def encode_text(params, frozen, player, text, keys=None):
        # Each player gets its own dropout keys.
        own = None if keys is None else derive_keys(keys, sorted(params).index(player))
        return conditioning.encode(params[player]["text"], frozen, text, own)

    def draw_w(params, condition, keys, mixing=0.0):
        first, second, whether, where = split_keys(keys, 4)

        def draw(keys):
            z = draw_normal(keys, (generator.latent,))
            return generator.apply(
                {"params": params["generator"]["net"]}, z, condition, method="map"
            )

        w = draw(first)
        layers = w.shape[1]
        if not mixing or layers == 1:
            return w
        start = jax.vmap(lambda key: jax.random.randint(key, (), 1, layers))(where)
        start = jnp.where(
            jax.vmap(lambda key: jax.random.bernoulli(key, mixing))(whether), start, layers
        )
        return jnp.where((jnp.arange(layers) >= start[:, None])[..., None], draw(second), w)

    def synthesize(params, stats, w, condition, keys, train):
        variables = {"params": params["generator"]["net"], "batch_stats": stats["generator"]}
        x, new = generator.apply(
            variables, w, condition, keys, train, method="synthesize", mutable=["batch_stats"]
        )
        return x, {**stats, "generator": new.get("batch_stats", {})}

    def judge(params, stats, x, condition, train):
        own = params["discriminator"]["net"]
        variables = {"params": own, "batch_stats": stats["discriminator"]}
        (logits, features), new = discriminator.apply(
            variables, x, condition, train, mutable=["batch_stats"]
        )
        return logits, features, {**stats, "discriminator": new.get("batch_stats", {})}

    def real(ctx: Context):
        return to_channels(to_unit(ctx.batch["image"]), generator.channels)

    return Game(
        settings=settings,
        objective=objective,
        generator=generator,
        conditioning=conditioning,
        init=make_init(config, conditioning, networks),
        captions=captions,
        encode_text=encode_text,
        draw_w=draw_w,
        synthesize=synthesize,
        judge=judge,
        augment=make_augment(settings, config.train.steps),
        real=real,
        axis_name=axis_name,
    )


def make_init(config, conditioning: Conditioning, networks: tuple) -> Callable:
    """Return `Family.init` of a game between networks (generator, discriminator)."""
    generator, discriminator = networks

    def init(rng, batch):
        rngs = jax.random.split(rng, 5)
        text, condition = conditioning.init(rngs[0], batch)
        own_text, own_condition = conditioning.init(rngs[1], batch)
        z, keys = jnp.zeros((1, generator.latent)), jax.random.split(rngs[2], 1)
        drawing = generator.init(rngs[3], z, condition, keys, False)
        w = generator.apply(drawing, z, condition, method="map")
        x = jnp.zeros((1, config.data.resolution, config.data.resolution, generator.channels))
        judging = discriminator.init(rngs[4], x, own_condition, False)
        params = {
            "generator": {"text": text, "net": drawing["params"]},
            "discriminator": {"text": own_text, "net": judging["params"]},
        }
        stats = {
            "generator": drawing.get("batch_stats", {}),
            "discriminator": judging.get("batch_stats", {}),
        }
        return params, {"stats": stats, "w": jnp.zeros(w.shape[-1]), "path_length": jnp.zeros(())}

    return init


def make_augment(settings: Mapping[str, Any], steps: int) -> Callable:
    """Return `Game.augment`; `steps` is the length of the run."""

    def augment(x, keys, ctx: Context):
        if not ctx.train:
            return x
        augment_keys, noise_keys = split_keys(keys, 2)
        if settings["augment"]:
            x = apply_policy(settings["augment"], x, augment_keys)
        if settings["instance_noise"]:
            left = jnp.maximum(1.0 - ctx.step / steps, 0.0)
            noise = draw_normal(noise_keys, x.shape[1:])
            x = x + settings["instance_noise"] * left * noise
        return x

    return augment


def check(settings: Mapping[str, Any], config) -> None:
    """Raise ValueError for settings of GAN_FIELDS that make no sense, or none for this model."""
    for field in ("discriminator_steps", "r1_every", "path_every"):
        if settings[field] < 1:
            raise ValueError(f"gan.{field} is {settings[field]}: it is 1 or more")
    for field in ("mismatch", "instance_noise", "gradient_penalty", "r1", "r2", "path_length"):
        if settings[field] < 0:
            raise ValueError(f"gan.{field} is {settings[field]}: it is 0, for none, or more")
    if not 0 <= settings["style_mixing"] <= 1:
        raise ValueError(
            f"gan.style_mixing is {settings['style_mixing']}: it is a probability, from 0 to 1"
        )
    if settings["mismatch"] and config.text.encoder == "none":
        raise ValueError("gan.mismatch needs captions, and text.encoder 'none' gives none")
    parse_policy(settings["augment"])
