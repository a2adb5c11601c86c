"""Generative adversarial networks (arXiv 1406.2661), conditional on what the text encoder hears (1411.1784, 1605.05396).

A network of models/ gives both players (`make_players`); objectives and penalties are those of adversarial/. Nothing here
knows which network it is: where one has no mapping network, `map` passes the latent vector on.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.adversarial.losses import Adversarial, make_losses
from t2i_jax.adversarial.penalties import gradient_penalty, path_length, r1
from t2i_jax.augmentation import differentiable, policies
from t2i_jax.by_name import make_of
from t2i_jax.families.family import Context, Family, Variables, fold_in_each, over, split_keys
from t2i_jax.models.layers import from_unit, to_channels, to_rgb, to_unit
from t2i_jax.text.condition import drop_captions, make_encoder, pretrained_texts

GAN = {
    "loss": "nonsaturating",
    "smoothing": 0.0,  # taken from the target of real pictures
    "mismatch": 0.0,  # weight of real pictures with captions of others, as fakes (arXiv 1605.05396, algorithm 1)
    "discriminator_steps": 1,  # in a step, each on pictures of its own
    "instance_noise": 0.0,  # standard deviation on all that the discriminator sees, falling to 0 (arXiv 1610.04490)
    "augment": "",  # policy of augmentation.differentiable, on all that the discriminator sees (arXiv 2006.10738)
    "gradient_penalty": 0.0,
    "r1": 0.0,
    "r1_every": 1,  # lazily: every so many steps, and so many times as strongly (arXiv 1912.04958, section 3.1)
    "path_length": 0.0,
    "path_every": 1,
    "style_mixing": 0.0,  # how often a picture has two latent vectors (arXiv 1812.04948, section 3.1)
}
SAMPLE = {"truncation": 1.0}
DECAY = 0.99  # of the running means of w and of path lengths
GENERATOR = 2**30  # folded into the keys: the generator is trained on other random numbers than the discriminator
SURE, FAR, ALIKE = 0.98, 100.0, 0.3  # see `warn`


class Game(NamedTuple):
    """Two players and what they do with one another; for families that add to it (families/vae_gan.py).

    settings: GAN with `config.gan` over it.   losses: {player: loss}, see `Family`.   objective: see adversarial/losses.py.
    hear: (params, frozen, player, text, keys) -> TextCondition of that player.
    captions: (ctx, keys) -> the text of the batch, in training with some captions dropped, and keys for dropout.
    synthesize: (params, stats, w, condition, keys, train) -> pictures [B, R, R, channels], stats.
    judge: (params, stats, pictures, condition, train) -> logits [B], features, stats.
    shown: (pictures, keys, ctx) -> the pictures as the discriminator is shown them.
    """

    settings: Mapping
    generator: Any
    init: Callable
    losses: Mapping[str, Callable]
    objective: Adversarial
    hear: Callable
    captions: Callable
    synthesize: Callable
    judge: Callable
    shown: Callable
    sample: Callable


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_game`, and sample.* (over SAMPLE). Raises ValueError as `make_game` does."""
    game, encoder = make_game(config, axis_name), make_encoder(config.text)
    return Family(
        init=game.init,
        losses=game.losses,
        abilities={"sample": game.sample},
        settings={"sample": over(SAMPLE, config.get("sample", {}), "sample")},
        pretrained=pretrained_texts(encoder),
        updates={"discriminator": game.settings["discriminator_steps"]},
        ranked=False,
        warn=warn,
    )


def make_game(config, axis_name=None) -> Game:
    """Fields used: data.resolution, text.*, model.* (`network`, a file of models/ with `make_players`, and its fields),
    gan.* (over GAN), caption_dropout and train.steps.

    Raises ValueError for an unknown name or field of these, and for a resolution that the network cannot make.
    """
    name, gan = config.text.encoder, over(GAN, config.get("gan", {}), "gan")
    objective, encoder = make_losses(gan["loss"], gan["smoothing"]), make_encoder(config.text)
    check(gan, config)
    make_players = make_of("models", config.model.network, "make_players")
    generator, discriminator = make_players(config.model, config.data.resolution, axis_name)

    def init(rng, batch):
        rngs = jax.random.split(rng, 5)
        length = batch["text"][name]["tokens"].shape[1]
        (text, condition), (own_text, own_condition) = (encoder.init(r, length) for r in rngs[:2])
        z, keys = jnp.zeros((1, generator.latent)), jax.random.split(rngs[2], 1)
        drawing = generator.init(rngs[3], z, condition, keys, False)
        w = generator.apply(drawing, z, condition, method="map")
        x = jnp.zeros((1, config.data.resolution, config.data.resolution, generator.channels))
        judging = discriminator.init(rngs[4], x, own_condition, False)
        params = {
            "generator": {"text": text, "net": drawing["params"]},
            "discriminator": {"text": own_text, "net": judging["params"]},
        }
        stats = {"generator": drawing.get("batch_stats", {}), "discriminator": judging.get("batch_stats", {})}
        return params, {"stats": stats, "w": jnp.zeros(w.shape[-1]), "path_length": jnp.zeros(())}

    def hear(params, frozen, player, text, keys=None):
        own = None if keys is None else fold_in_each(keys, sorted(params).index(player))  # the same dropout for no two
        return encoder.apply(params[player]["text"], frozen.get("text"), text, own)

    def captions(ctx: Context, keys):
        text = ctx.batch["text"][name]
        if not ctx.train:
            return text, None
        drop_keys, dropout_keys = split_keys(keys, 2)
        return drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout), dropout_keys

    def heard(params, ctx: Context, keys):
        """The captions of the batch, as they are and as the generator and the discriminator hear them."""
        text, dropout_keys = captions(ctx, keys)
        return text, *(hear(params, ctx.frozen, player, text, dropout_keys) for player in ("generator", "discriminator"))

    def latents(params, text, keys, mixing=0.0):
        """w [B, layers, D]; with probability `mixing` the layers from a random one on have another than those before."""
        first, second, whether, where = split_keys(keys, 4)

        def draw(keys):
            z = jax.vmap(lambda key: jax.random.normal(key, (generator.latent,)))(keys)
            return generator.apply({"params": params["generator"]["net"]}, z, text, method="map")

        w = draw(first)
        layers = w.shape[1]
        if not mixing or layers == 1:
            return w
        start = jax.vmap(lambda key: jax.random.randint(key, (), 1, layers))(where)
        start = jnp.where(jax.vmap(lambda key: jax.random.bernoulli(key, mixing))(whether), start, layers)
        return jnp.where((jnp.arange(layers) >= start[:, None])[..., None], draw(second), w)

    def synthesize(params, stats, w, text, keys, train):
        """Pictures [B, R, R, channels] and the statistics that drawing them leaves."""
        variables = {"params": params["generator"]["net"], "batch_stats": stats["generator"]}
        x, new = generator.apply(variables, w, text, keys, train, method="synthesize", mutable=["batch_stats"])
        return x, {**stats, "generator": new.get("batch_stats", {})}

    def judge(params, stats, x, text, train):
        """Logits [B], features and the statistics that judging leaves."""
        variables = {"params": params["discriminator"]["net"], "batch_stats": stats["discriminator"]}
        (logits, features), new = discriminator.apply(variables, x, text, train, mutable=["batch_stats"])
        return logits, features, {**stats, "discriminator": new.get("batch_stats", {})}

    def shown(x, keys, ctx: Context):
        """Pictures as the discriminator is shown them."""
        if not ctx.train:
            return x
        augment_keys, noise_keys = split_keys(keys, 2)
        if gan["augment"]:
            x = differentiable(gan["augment"], x, augment_keys)
        if gan["instance_noise"]:
            left = jnp.maximum(1.0 - ctx.step / config.train.steps, 0.0)
            noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(noise_keys)
            x = x + gan["instance_noise"] * left * noise
        return x

    def discriminator_loss(params, ctx: Context):
        """Real against drawn pictures, and against real ones with another's caption; `accuracy` is that of pairs."""
        text_keys, w_keys, draw_keys, real_keys, fake_keys, place_keys = split_keys(ctx.keys, 6)
        said, text, own_text = heard(params, ctx, text_keys)
        w = latents(params, text, w_keys, gan["style_mixing"])
        fake, _ = synthesize(params, ctx.extra["stats"], w, text, draw_keys, ctx.train)
        fake = shown(fake, fake_keys, ctx)
        real = shown(to_channels(to_unit(ctx.batch["image"]), generator.channels), real_keys, ctx)
        real_logits, _, stats = judge(params, ctx.extra["stats"], real, own_text, ctx.train)
        fake_logits, _, stats = judge(params, stats, fake, own_text, ctx.train)
        loss = objective.real(real_logits) + objective.fake(fake_logits)
        metrics = {"accuracy": real_logits > fake_logits, "real_logit": real_logits, "fake_logit": fake_logits}
        if gan["mismatch"]:
            others = of_next(said["tokens"], axis_name)
            null = ctx.frozen["null_text"][name]["tokens"]
            wrong = (others != said["tokens"]).any(1) & (others != null).any(1)  # neither is wrong: the same, or none
            wrong_logits, *_ = judge(params, stats, real, of_next(own_text, axis_name), ctx.train)
            loss = loss + gan["mismatch"] * wrong * objective.fake(wrong_logits)
            metrics["caption_accuracy"] = real_logits > wrong_logits
        if ctx.train:

            def logits_of(x):
                return judge(params, stats, x, own_text, True)[0]

            if gan["gradient_penalty"]:
                loss = loss + gan["gradient_penalty"] * gradient_penalty(logits_of, real, fake, place_keys)
            if gan["r1"]:
                loss = loss + gan["r1"] * lazily(gan["r1_every"], ctx.step, lambda: r1(logits_of, real))
        return loss, ({**ctx.extra, "stats": stats}, metrics)

    def generator_loss(params, ctx: Context):
        """How little the discriminator is fooled, and how uneven the way from w to pictures is."""
        text_keys, w_keys, draw_keys, fake_keys, path_keys = split_keys(fold_in_each(ctx.keys, GENERATOR), 5)
        _, text, own_text = heard(params, ctx, text_keys)
        w = latents(params, text, w_keys, gan["style_mixing"])
        fake, stats = synthesize(params, ctx.extra["stats"], w, text, draw_keys, ctx.train)
        logits, *_ = judge(params, stats, shown(fake, fake_keys, ctx), own_text, ctx.train)
        loss, extra = objective.fool(logits), {**ctx.extra, "stats": stats}
        if ctx.train:
            extra["w"] = running(extra["w"], w[:, 0], axis_name)
            if gan["path_length"]:

                def path():
                    def pictures(w):
                        return synthesize(params, stats, w, text, draw_keys, True)[0]

                    return path_length(pictures, w, path_keys, ctx.extra["path_length"])

                penalty, lengths = lazily(gan["path_every"], ctx.step, path)
                loss = loss + gan["path_length"] * penalty
                now = running(extra["path_length"], jax.lax.stop_gradient(lengths) / gan["path_every"], axis_name)
                extra["path_length"] = jnp.where(ctx.step % gan["path_every"] == 0, now, extra["path_length"])
        return loss, (extra, {})

    def sample(variables: Variables, inputs, keys, *, truncation):
        """Pictures uint8 [B, R, R, 3]; truncation below 1 draws w towards its mean (arXiv 1812.04948, appendix B)."""
        params, mean = variables.params, variables.extra["w"]
        text = hear(params, variables.frozen, "generator", inputs["text"][name])
        w_keys, draw_keys = split_keys(keys, 2)
        w = mean + truncation * (latents(params, text, w_keys) - mean)
        return from_unit(to_rgb(synthesize(params, variables.extra["stats"], w, text, draw_keys, False)[0]))

    losses = {"discriminator": discriminator_loss, "generator": generator_loss}
    return Game(gan, generator, init, losses, objective, hear, captions, synthesize, judge, shown, sample)


def check(gan: Mapping, config) -> None:
    """ValueError for settings (GAN) that mean nothing, or nothing to this model."""
    for field in ("discriminator_steps", "r1_every", "path_every"):
        if gan[field] < 1:
            raise ValueError(f"gan.{field} is {gan[field]}: it is 1 or more")
    for field in ("mismatch", "instance_noise", "gradient_penalty", "r1", "path_length"):
        if gan[field] < 0:
            raise ValueError(f"gan.{field} is {gan[field]}: it is 0, for none, or more")
    if not 0 <= gan["style_mixing"] <= 1:
        raise ValueError(f"gan.style_mixing is {gan['style_mixing']}: how often, from 0 to 1")
    if gan["mismatch"] and config.text.encoder == "none":
        raise ValueError("gan.mismatch needs captions, and text.encoder 'none' hears none")
    policies(gan["augment"])


def lazily(every: int, step, penalty):
    """`every` times what penalty() gives, at every such step, and zeros in between (arXiv 1912.04958, section 3.1)."""
    if every == 1:
        return penalty()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(penalty))
    return jax.lax.cond(step % every == 0, lambda: jax.tree.map(lambda x: every * x, penalty()), lambda: zeros)


def of_next(tree, axis_name: str | None):
    """Of each example what the next one of the global batch has; of the last, what the first has. Leaves are [B, ...]."""

    def next_of(x):
        if axis_name is None:
            return jnp.roll(x, -1, axis=0)
        whole = jnp.roll(jax.lax.all_gather(x, axis_name, tiled=True), -1, axis=0)
        return jax.lax.dynamic_slice_in_dim(whole, jax.lax.axis_index(axis_name) * len(x), len(x))

    return jax.tree.map(next_of, tree)


def running(mean, values, axis_name: str | None):
    """The running mean after the values [B, ...] of a batch."""
    now = jax.lax.stop_gradient(values).mean(0)
    now = now if axis_name is None else jax.lax.pmean(now, axis_name)
    return DECAY * mean + (1.0 - DECAY) * now


def warn(means) -> str:
    """What to say of a game that one player wins."""
    if means.get("discriminator/accuracy", 0.0) > SURE:
        return (
            f"the discriminator diverges from the generator: it tells more than {SURE:.0%} of drawn pictures from real ones; "
            "gan.r1, gan.augment or a lower learning rate in optim.players.discriminator may help"
        )
    if abs(means.get("discriminator/real_logit", 0.0) - means.get("discriminator/fake_logit", 0.0)) > FAR:
        return f"the discriminator diverges: its logits of real and of drawn pictures are more than {FAR:g} apart"
    if means.get("score/diversity", 1.0) < ALIKE:
        return f"mode collapse: drawn pictures differ less than {ALIKE} times as much as real ones do (score/diversity)"
    return ""
