"""GAN: losses against their formulas, what each player changes, and the settings of the game."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.config import base
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.families import gan
from t2i_jax.training import optimizer as optim
from t2i_jax.training import step

NULL = {"transformer": {"tokens": np.array([1, 0, 0]), "mask": np.array([True, False, False])}}
FROZEN = {"null_text": NULL}
MLP = {"network": "mlp_gan", "channels": 3, "latent": 4, "widths": (16,)}
DCGAN = {
    "network": "dcgan",
    "channels": 3,
    "latent": 4,
    "width": 8,
    "levels": 1,
    "norm": "spectral",
    "attention": (4,),
}


def config_of(model=MLP, **gan_settings):
    config = ConfigDict(
        {
            "data": {"resolution": 8},
            "text": {
                "encoder": "transformer",
                "length": 3,
                "vocab_size": 8,
                "width": 16,
                "depth": 0,
            },
            "model": model,
            "gan": gan_settings,
            "caption_dropout": 0.0,
            "train": {"steps": 10},
            "optim": base().optim.to_dict(),
        }
    )
    plain = {
        "name": "sgd",
        "learning_rate": 0.05,
        "schedule": "constant",
        "warmup": 0,
        "clip": 0.0,
        "b1": 0.0,
    }
    config.optim.update({**plain, "weight_decay": 0.0})
    return config


def batch_of(size=4, seed=0):
    rng = np.random.default_rng(seed)
    word = np.arange(size) % 2
    tokens = np.stack([word + 2, np.ones_like(word), np.zeros_like(word)], 1).astype(np.int32)
    text = {"transformer": {"tokens": tokens, "mask": tokens > 0}}
    return {"image": rng.integers(0, 256, (size, 8, 8, 3)).astype(np.uint8), "text": text}


@functools.cache
def started(network="mlp", **settings):
    """(family, params, extra) of a fresh game."""
    family = gan.make(config_of(MLP if network == "mlp" else DCGAN, **settings))
    params, extra = jax.jit(family.init)(jax.random.key(0), batch_of())
    return family, params, extra


def evaluated(player, network="mlp", seed=0, train=True, count=4, at=0, **settings):
    """(loss [B], extra, metrics) of one player."""
    family, params, extra = started(network, **settings)
    keys = jax.random.split(jax.random.key(seed), count)

    @jax.jit
    def loss(params, extra, step):
        return family.losses[player](
            params, Context(extra, FROZEN, None, step, batch_of(count), keys, train)
        )

    value, (extra, metrics) = loss(params, extra, at)
    return value, extra, metrics


def softplus(x):
    return np.log1p(np.exp(x))


def test_losses_are_those_of_the_logits():
    loss, _, metrics = evaluated("discriminator", mismatch=0.5)
    real, fake = (np.asarray(metrics[name]) for name in ("real_logit", "fake_logit"))
    plain, _, _ = evaluated("discriminator")
    np.testing.assert_allclose(plain, softplus(-real) + softplus(fake), rtol=1e-5)
    assert (loss > plain).all()  # real pictures with others' captions cost something too
    np.testing.assert_array_equal(metrics["accuracy"], real > fake)


def test_an_equal_caption_is_no_mismatch():
    """The captions of the batch are a, b, a, b. Then all are a."""
    family, params, extra = started("mlp", mismatch=1.0)
    batch, keys = batch_of(), jax.random.split(jax.random.key(0), 4)
    alike = jax.tree.map(lambda x: x[np.array([0, 0, 0, 0])], batch["text"])

    @jax.jit
    def both(text):
        ctx = Context(extra, FROZEN, None, 0, {**batch, "text": text}, keys)
        plain = gan.make(config_of()).losses["discriminator"]
        return family.losses["discriminator"](params, ctx)[0] - plain(params, ctx)[0]

    assert (both(batch["text"]) > 1e-6).all()
    assert (abs(both(alike)) <= 1e-6).all()


def test_the_generators_loss_and_instance_noise():
    """The discriminator's pictures are noisy at first; at the last step the noise is gone."""
    clean = evaluated("discriminator", at=10)[2]["real_logit"]
    first, last = (
        evaluated("discriminator", at=at, instance_noise=1.0)[2]["real_logit"] for at in (0, 10)
    )
    np.testing.assert_allclose(last, clean, rtol=1e-5)
    assert abs(first - clean).max() > 1e-3
    loss, _, _ = evaluated("generator")
    smoothed, _, _ = evaluated("generator", smoothing=0.2)
    np.testing.assert_array_equal(loss, smoothed)  # one-sided: the generator's target stays


@pytest.mark.parametrize("settings", [{"r1": 2.0}, {"r2": 2.0}, {"gradient_penalty": 10.0}])
def test_penalties_are_added_in_training_only(settings):
    for train in (True, False):
        with_penalty, without = (
            evaluated("discriminator", train=train, **s)[0] for s in (settings, {})
        )
        if train:
            assert (with_penalty > without).all()
        else:
            np.testing.assert_array_equal(with_penalty, without)


def test_lazy_penalties_are_rare_and_strong():
    base, always = (evaluated("discriminator", **s)[0] for s in ({}, {"r1": 2.0}))
    lazy = [evaluated("discriminator", at=at, r1=2.0, r1_every=4)[0] for at in (0, 1, 4)]
    np.testing.assert_allclose(lazy[0] - base, 4 * (always - base), rtol=1e-3)
    np.testing.assert_allclose(lazy[1], base, rtol=1e-6)
    np.testing.assert_allclose(lazy[2], lazy[0], rtol=1e-6)


def test_path_length_keeps_its_running_mean_between_lazy_steps():
    _, extra, _ = evaluated("generator", path_length=2.0, path_every=4)
    _, idle, _ = evaluated("generator", at=1, path_length=2.0, path_every=4)
    _, eager, _ = evaluated("generator", path_length=2.0)
    assert extra["path_length"] > 0 and idle["path_length"] == 0
    np.testing.assert_allclose(extra["path_length"], eager["path_length"], rtol=1e-5)


def test_the_wrong_caption_is_the_one_most_alike_on_any_number_of_devices():
    """Equal captions and the empty one (null) are never wrong; of equally good, the next."""
    null = np.array([1, 0, 0])
    tokens = np.array(
        [[2, 3, 1], [2, 4, 1], [5, 5, 5], [2, 3, 1], [1, 0, 0], [5, 5, 6], [7, 3, 1], [2, 4, 1]]
    )
    places, wrong = gan.most_alike(tokens, null, None)
    np.testing.assert_array_equal(places, [1, 3, 5, 6, 5, 2, 0, 0])
    assert wrong.all()
    _, wrong = gan.most_alike(np.array([[2, 3, 1], [1, 0, 0], [2, 3, 1]]), null, None)
    np.testing.assert_array_equal(wrong, [False, True, False])

    def on_a_device(tokens):
        found, _ = gan.most_alike(tokens, null, "i")
        return found, gan.of_others({"tokens": tokens}, found, "i")["tokens"]

    spread, others = jax.pmap(on_a_device, "i")(tokens.reshape(4, 2, 3))
    np.testing.assert_array_equal(spread.reshape(8), places)
    np.testing.assert_array_equal(others.reshape(8, 3), tokens[places])


def test_a_relativistic_loss_compares_each_drawn_picture_with_the_real_one_of_its_caption():
    loss, _, metrics = evaluated("discriminator", loss="relativistic")
    real, fake = (np.asarray(metrics[name]) for name in ("real_logit", "fake_logit"))
    np.testing.assert_allclose(loss, softplus(fake - real), rtol=1e-5)
    both, _, _ = evaluated("discriminator", loss="relativistic", mismatch=0.5)
    assert (both > loss).all()
    # The generator's loss has the same pairs the other way round, of pictures of its own.
    absolute, _, _ = evaluated("generator")
    own = -np.log(np.expm1(np.asarray(absolute, np.float64)))  # the logits of its pictures
    relative, _, _ = evaluated("generator", loss="relativistic")
    np.testing.assert_allclose(relative, softplus(real - own), rtol=1e-4)


def test_each_player_changes_only_itself_and_the_discriminator_may_take_more_steps():
    config = config_of(discriminator_steps=2)
    config.optim.players = {"generator": {"learning_rate": 0.0}}
    family = gan.make(config)
    optimizers = {player: optim.make(config.optim, 10, player) for player in family.losses}
    start = jax.jit(lambda: state.create(family, optimizers, batch_of(), 0))()
    after, metrics = jax.jit(step.make_step(family, optimizers, ema_decay=0.9))(
        start, FROZEN, batch_of(8)
    )
    same = jax.tree.map(lambda a, b: bool((a == b).all()), start.params, after.params)
    assert all(jax.tree.leaves(same["generator"])) and not any(
        jax.tree.leaves(same["discriminator"]["net"])
    )
    assert (
        family.updates == {"discriminator": 2}
        and np.isfinite(list(map(float, metrics.values()))).all()
    )


def test_batch_statistics_of_both_players_move():
    _, _, extra = started("dcgan")
    _, after, _ = evaluated("discriminator", "dcgan")
    _, later, _ = evaluated("generator", "dcgan")

    def moved(player, to):
        same = jax.tree.map(
            lambda a, b: bool((a == b).all()), extra["stats"][player], to["stats"][player]
        )
        return not any(jax.tree.leaves(same))

    assert moved("generator", later) and not moved("generator", after)
    assert moved("discriminator", after) and not moved("discriminator", later)


def drawn(network="mlp", tokens=(2, 3), seeds=(0, 1), truncation=1.0, extra=None):
    family, params, fresh = started(network)
    tokens = np.array([[t, 1, 0] for t in tokens], np.int32)
    text = {"transformer": {"tokens": tokens, "mask": tokens > 0}}
    keys = jax.vmap(jax.random.key)(np.array(seeds))
    variables = Variables(params, extra or fresh, FROZEN)
    sample = jax.jit(family.abilities["sample"])
    return np.asarray(sample(variables, {"text": text}, keys, truncation=truncation)).astype(int)


@pytest.mark.parametrize("network", ["mlp", "dcgan"])
def test_a_picture_depends_on_its_own_key_and_caption(network):
    both = drawn(network)
    assert both.shape == (2, 8, 8, 3)
    assert abs(drawn(network, (2,), (0,))[0] - both[0]).max() <= 1  # alone or in company
    assert abs(drawn(network, (3, 3))[0] - both[0]).max() > 1  # another caption
    assert abs(drawn(network, (2, 3), (5, 1))[0] - both[0]).max() > 1  # another seed


def test_truncation_to_zero_is_the_picture_of_the_mean():
    a, b = drawn(tokens=(2, 2), truncation=0.0)
    np.testing.assert_array_equal(a, b)
    assert abs(drawn(tokens=(2, 2))[0] - a).max() > 1


def test_a_conditional_game_on_a_toy_learns_its_captions():
    """Dark pictures for one word, light ones for the other."""
    config = config_of(mismatch=1.0)
    config.optim.update({"name": "adamw", "learning_rate": 2e-3, "b1": 0.5})
    family, batch = gan.make(config), batch_of(16)
    batch["image"] = np.broadcast_to(
        np.where(np.arange(16) % 2, 200, 40)[:, None, None, None], (16, 8, 8, 3)
    ).astype(np.uint8)
    optimizers = {player: optim.make(config.optim, 150, player) for player in family.losses}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.9))
    for _ in range(150):
        current, _ = update(current, FROZEN, batch)
    variables = Variables(current.ema["params"], current.ema["extra"], FROZEN)
    keys = jax.random.split(jax.random.key(7), 16)
    pictures = family.abilities["sample"](variables, {"text": batch["text"]}, keys, truncation=1.0)
    light = np.asarray(pictures).mean((1, 2, 3))
    assert light[1::2].min() > light[::2].max() + 50


def test_a_batch_of_one_is_refused_where_statistics_need_more():
    with pytest.raises(ValueError, match="BatchNorm cannot be trained on one picture"):
        evaluated("generator", "dcgan", count=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gan.loss": "nonsaturing"}, "did you mean 'nonsaturating'"),
        ({"gan.r3": 1.0}, "gan.r3 is unknown: gan has loss"),
        ({"gan.discriminator_steps": 0}, "gan.discriminator_steps is 0: it is 1 or more"),
        ({"gan.augment": "colour,cutoff"}, "no differentiable augmentation 'cutoff'"),
        ({"gan.style_mixing": 2.0}, "from 0 to 1"),
        (
            {"model.network": "dit"},
            "there is no 'dit' in models: there are dcgan, mlp_gan, stylegan2",
        ),
    ],
)
def test_wrong_settings_are_named(change, message):
    config = config_of(loss="hinge")
    for path, value in change.items():
        section, field = path.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message):
        gan.make(config)


def test_warnings_of_a_lost_game():
    assert gan.warn({"discriminator/accuracy": 0.8, "score/diversity": 0.9}) == ""
    assert "the discriminator diverges" in gan.warn({"discriminator/accuracy": 0.995})
    assert "logits" in gan.warn(
        {"discriminator/real_logit": 80.0, "discriminator/fake_logit": -80.0}
    )
    assert "mode collapse" in gan.warn({"score/diversity": 0.1})
