"""VQGAN: losses against their formulas, and pictures to codes or latents and back."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.config import base
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.families import autoencoder, vqgan
from t2i_jax.metrics import similarity
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.training import optimizer as optim
from t2i_jax.training import parallel, step

QUANTIZERS = {
    "ema": {"kind": "ema", "size": 32, "dim": 4},
    "fsq": {"kind": "fsq", "levels": (4, 3, 3)},
    "kl": {"kind": "kl", "dim": 3},
}
KEYS = jax.random.split(jax.random.key(5), 8)


def config_of(kind="ema", **settings):
    config = base()
    config.data = {"resolution": 12}
    config.model = dict(width=8, multipliers=(1,), blocks=1, middle_attention=False, patch=4)
    config.quantizer = QUANTIZERS[kind]
    config.discriminator = {"width": 8, "levels": 1}
    config.vqgan = settings
    config.optim.update(
        {
            "name": "sgd",
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup": 0,
            "clip": 0.0,
            "b1": 0.0,
        }
    )
    return ConfigDict(config)


def batch_of(count=4):
    return {"image": np.random.default_rng(0).integers(0, 256, (count, 12, 12, 3)).astype(np.uint8)}


@functools.cache
def started(kind="ema", game=False):
    """(autoencoder, params, extra) of a fresh model whose codebook is fitted to the batch."""
    config = config_of(kind, adversarial=float(game))
    net = autoencoder.make_autoencoder(config)

    @jax.jit
    def begin():
        params, extra = vqgan.make(config).init(jax.random.key(0), batch_of())
        for _ in range(2):
            extra = net.quantize(
                params["model"], extra, to_unit(batch_of()["image"]), KEYS[:4]
            ).extra
        return params, extra

    return net, *begin()


def context(extra, at=0, train=True, frozen=None):
    return Context(extra, frozen or {}, None, at, batch_of(), KEYS[:4], train)


def test_the_loss_is_that_of_pixels_and_codes():
    net, params, extra = started()
    family = vqgan.make(config_of(l1=0.7, l2=0.2, quantizer=0.5))

    @jax.jit
    def both(params, extra):
        loss, (after, metrics) = family.losses["model"](params, context(extra))
        x = to_unit(batch_of()["image"])
        found = net.quantize(params["model"], extra, x, KEYS[:4])
        return loss, after, metrics, net.draw(params["model"], found.vectors) - x, found

    loss, after, metrics, error, found = both(params, extra)
    error = np.asarray(error).reshape(4, -1)
    expected = 0.7 * abs(error).mean(1) + 0.2 * (error**2).mean(1) + 0.5 * found.loss
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert (
        set(metrics) == {"l1", "l2", "quantizer", "perplexity", "usage"}
        and list(family.losses) == ["model"]
        and family.lower_loss_is_better
    )
    np.testing.assert_array_equal(after["mass"], found.extra["mass"])
    assert abs(after["mass"] - extra["mass"]).max() > 0


def test_perceptual_distance_is_that_of_the_metric_and_has_a_gradient(monkeypatch):
    small = functools.partial(
        EfficientNetLite, stages=((1, 3, 1, 1, 4), (1, 3, 2, 2, 8)), classes=2
    )
    monkeypatch.setattr(vqgan, "EfficientNetLite", small)
    a, b = (to_unit(batch_of(8)["image"])[i::2] for i in (0, 1))
    shapes = jax.eval_shape(small().init, jax.random.key(0), a)
    r = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda s: jnp.asarray(abs(r.normal(size=s.shape)) + 0.1, jnp.float32), shapes
    )

    @jax.jit
    def measured(a):
        value, gradient = jax.value_and_grad(lambda a: vqgan.perceptual(variables, a, b, 24).sum())(
            a
        )
        shown = [
            (jax.image.resize(127.5 * (x + 1), (4, 24, 24, 3), "bilinear") - 127) / 128
            for x in (a, b)
        ]
        return value, gradient, *(small().apply(variables, x)["maps"] for x in shown)

    value, gradient, maps_a, maps_b = measured(a)
    np.testing.assert_allclose(
        value, similarity.perceptual_distance(maps_a, maps_b).sum(), rtol=1e-4
    )
    assert np.isfinite(gradient).all() and (abs(np.asarray(gradient)).max((1, 2, 3)) > 1e-6).all()
    assert float(jax.jit(lambda: vqgan.perceptual(variables, b, b, 24).max())()) == 0


def test_balance_is_the_ratio_of_gradient_norms():
    k, a, b = (
        jnp.asarray(np.random.default_rng(i).normal(size=(3, 5)), jnp.float32) for i in range(3)
    )
    weight = vqgan.balance(lambda k: (a * k).sum(), lambda k: (2 * b * jnp.sin(k)).sum(), k)
    expected = np.linalg.norm(a) / np.linalg.norm(2 * b * np.cos(k))
    np.testing.assert_allclose(weight, expected, rtol=1e-5)
    assert vqgan.balance(lambda k: k.sum(), lambda k: 0.0 * k.sum(), k) == vqgan.MAX_BALANCE
    slope = jax.grad(lambda s: vqgan.balance(lambda k: (s * k).sum(), lambda k: k.sum(), k))(2.0)
    assert slope == 0


def test_the_adversarial_part_is_weighted_by_the_last_layers_gradients():
    net, params, extra = started(game=True)
    family, plain = vqgan.make(config_of(adversarial=0.3, start=5)), vqgan.make(config_of())

    kernel = params["model"]["decoder"]["conv_out"]["kernel"]

    @jax.jit
    def measured(at):
        def own(kernel):
            decoder = params["model"]["decoder"]
            return {
                **params["model"],
                "decoder": {**decoder, "conv_out": {**decoder["conv_out"], "kernel": kernel}},
            }

        def unlike(kernel):
            return plain.losses["model"]({**params, "model": own(kernel)}, context(extra))[0]

        def fool(kernel):  # hinge: minus the mean logit
            fake = net.draw(
                own(kernel),
                net.quantize(
                    params["model"], extra, to_unit(batch_of()["image"]), KEYS[:4]
                ).vectors,
            )
            judge = vqgan.patch_discriminator.PatchDiscriminator(**config_of().discriminator)
            return -judge.apply({"params": params["discriminator"]}, fake).mean((1, 2))

        loss, (_, metrics) = family.losses["model"](params, context(extra, at))
        calm = family.losses["model"](params, context(extra, at, train=False))[0]
        slopes = [jax.grad(lambda kernel, f=f: f(kernel).mean())(kernel) for f in (unlike, fool)]
        return loss, calm, metrics["adversarial_weight"], unlike(kernel), fool(kernel), slopes

    loss, calm, weight, unlike, fool, slopes = measured(5)
    ratio = np.linalg.norm(slopes[0]) / np.linalg.norm(slopes[1])
    np.testing.assert_allclose(weight, np.full(4, 0.3 * ratio), rtol=1e-3)
    np.testing.assert_allclose(loss, unlike + weight * fool, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(calm, unlike, rtol=1e-6)  # measuring leaves it out
    loss, _, weight, unlike, *_ = measured(4)  # too early
    np.testing.assert_array_equal(weight, 0)
    np.testing.assert_allclose(loss, unlike, rtol=1e-6)


def test_the_discriminators_loss():
    net, params, extra = started(game=True)
    family = vqgan.make(config_of(adversarial=1.0, start=2))
    assert list(family.losses) == ["model", "discriminator"] and not family.lower_loss_is_better

    @jax.jit
    def measured(at):
        loss, (after, metrics) = family.losses["discriminator"](params, context(extra, at))
        x = to_unit(batch_of()["image"])
        fake = net.draw(params["model"], net.quantize(params["model"], extra, x, KEYS[:4]).vectors)
        judge = vqgan.patch_discriminator.PatchDiscriminator(**config_of().discriminator)
        return (
            loss,
            after,
            metrics,
            *(judge.apply({"params": params["discriminator"]}, a) for a in (x, fake)),
        )

    loss, after, metrics, real, fake = measured(2)
    np.testing.assert_allclose(
        loss, (np.maximum(1 - real, 0) + np.maximum(1 + fake, 0)).mean((1, 2)), rtol=1e-5
    )
    np.testing.assert_array_equal(metrics["accuracy"], real.mean((1, 2)) > fake.mean((1, 2)))
    jax.tree.map(np.testing.assert_array_equal, after, extra)  # codes are counted once a step
    np.testing.assert_array_equal(measured(1)[0], 0)


def test_devices_give_the_same_step():
    """Adaptive weight, codebook and both players' parameters, on one device and pmapped over 2."""
    config, found = config_of(adversarial=0.5), []
    _, params, extra = started(game=True)
    for mode, devices in (("jit", jax.devices()[:1]), ("pmap", jax.devices()[:2])):
        place = parallel.make(ConfigDict({"mode": mode, "fsdp": 1, "tensor": 1}), devices)
        family = vqgan.make(config, place.axis_name)
        optimizers = {player: optim.make(config.optim, 10, player) for player in family.losses}
        opt_state = {player: optimizers[player].init(params[player]) for player in params}
        ema = {"params": params, "extra": extra}
        start = state.TrainState(jnp.int32(0), params, opt_state, extra, ema, jax.random.key(3))
        start = jax.tree.map(jnp.copy, start)
        update = place.compile(
            step.make_step(family, optimizers, ema_decay=0.9, axis_name=place.axis_name)
        )
        after, metrics = update(place.put_state(start), {}, place.put_batch(batch_of(8)))
        found.append(
            (
                jax.tree.map(np.asarray, place.take(after)._replace(rng=0)),
                {k: float(v) for k, v in metrics.items()},
            )
        )
    (one, metrics), (two, there) = found
    assert metrics["model/adversarial_weight"] > 0
    for name, value in metrics.items():
        np.testing.assert_allclose(there[name], value, rtol=1e-3, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), two, one)
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), one.params, params)
    assert all(max(jax.tree.leaves(moved[player])) > 1e-5 for player in params)


def test_a_few_pictures_are_learned():
    config = config_of()
    config.optim.update({"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.0})
    plain = np.zeros((4, 12, 12, 3), np.uint8)
    plain[1, :6], plain[2, :, 6:], plain[3, 4:8, 4:8] = 200, (255, 0, 0), (0, 0, 255)
    family = vqgan.make(config)
    optimizers = {"model": optim.make(config.optim, 80)}
    current = jax.jit(lambda: state.create(family, optimizers, batch_of(), 0))()
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.9))
    history = []
    for _ in range(80):
        current, metrics = update(current, {}, {"image": plain})
        history.append(float(metrics["l1"]))
    assert history[-1] < 0.25 * history[0]
    assert metrics["perplexity"] > 4


class FakeSource(SimpleNamespace):
    captions = [""] * 9

    @staticmethod
    def read(places):
        return np.random.default_rng(1).integers(0, 256, (9, 12, 12, 3)).astype(np.uint8)[places]


@pytest.mark.parametrize("kind", ["ema", "fsq"])
def test_codes_lead_back_to_pictures(kind):
    """Nothing else is needed: no discriminator, and no empty dict, which files do not keep."""
    net, params, extra = started(kind, game=kind == "ema")
    stage = vqgan.make_codes(config_of(kind))
    variables = Variables(params, extra, {"perceptual": 0})
    frozen = stage.fit(variables, None)
    assert set(frozen["params"]) == {"encoder", "decoder", "quantizer"}
    if kind == "fsq":
        assert frozen["params"].pop("quantizer") == {}
    image, able = batch_of()["image"], autoencoder.make_abilities(net)

    @jax.jit
    def measured(frozen, variables):
        codes = stage.encode(frozen, image)
        again = net.draw(frozen["params"], stage.vectors(frozen)[codes].reshape(4, *net.shape))
        own = (
            able["encode"](variables, {"image": image}),
            able["reconstruct"](variables, {"image": image}),
        )
        return codes, stage.decode(frozen, codes), *own, again

    codes, pictures, own_codes, reconstructed, again = measured(
        frozen, variables._replace(frozen={})
    )
    assert (
        codes.shape == (4, 9)
        and codes.dtype == jnp.int32
        and codes.min() >= 0
        and codes.max() < stage.size
    )
    assert len(np.unique(codes)) > 2 and stage.grid == (3, 3) and stage.channels == net.shape[2]
    np.testing.assert_array_equal(own_codes, codes)
    np.testing.assert_array_equal(reconstructed, pictures)
    np.testing.assert_allclose(to_unit(pictures), np.clip(again, -1, 1), atol=1.01 / 127.5)


def test_codes_of_patches_depend_on_their_own_cells_alone():
    """Their vectors are the pixels, row by row, and the codebook quantizes those vectors."""
    config = config_of()
    config.model.encoder, config.quantizer = (
        "patches",
        ConfigDict({"kind": "ema", "size": 32, "dim": 48, "normalize": False}),
    )
    net, image = autoencoder.make_autoencoder(config), batch_of()["image"]
    params, extra = net.init(jax.random.key(0))
    assert "encoder" not in params
    image[0], image[1] = image[0, :1, :1], image[1, :1, :1]  # two flat ones
    extra = net.quantize(params, extra, to_unit(image), KEYS[:4]).extra
    latents = net.latents(params, to_unit(image))
    assert latents.shape == (4, 3, 3, 48)
    np.testing.assert_array_equal(latents[2, 1, 2].reshape(4, 4, 3), to_unit(image[2, 4:8, 8:12]))
    codes = np.asarray(net.codes(params, extra, latents))
    changed = image.copy()
    changed[2:, 4:8, 8:12] = image[0, 0, 0]
    again = np.asarray(net.codes(params, extra, net.latents(params, to_unit(changed))))
    assert (again[2:, 5] == codes[0, 5]).all() and (codes[2:, 5] != codes[0, 5]).all()
    np.testing.assert_array_equal(np.delete(again, 5, 1), np.delete(codes, 5, 1))


@pytest.mark.parametrize("kind", ["ema", "kl"])
def test_latents_have_mean_0_and_deviation_1_and_lead_back(kind):
    net, params, extra = started(kind)
    stage, variables = vqgan.make_latents(config_of(kind)), Variables(params, extra, {})
    frozen, images = stage.fit(variables, FakeSource()), FakeSource.read(np.arange(9))
    latents = jax.jit(stage.encode)(frozen, images)
    assert latents.shape == (9, *stage.shape) == (9, 3, 3, net.shape[2])
    np.testing.assert_allclose(latents.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(latents.std((0, 1, 2)), 1, rtol=1e-3)
    reconstructed = jax.jit(
        lambda v: autoencoder.make_abilities(net)["reconstruct"](v, {"image": images})
    )(variables)
    assert (
        abs(np.asarray(jax.jit(stage.decode)(frozen, latents)).astype(int) - reconstructed).max()
        <= 1
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vqgan.l3": 1.0}, "vqgan.l3 is unknown: vqgan has l1"),
        ({"vqgan.l1": 0.0}, "are 0: a reconstruction must be compared"),
        ({"vqgan.start": -1}, "vqgan.start is -1"),
        ({"vqgan.loss": "hing"}, "did you mean 'hinge'"),
        ({"quantizer.kind": "vqq"}, "no quantizer 'vqq'"),
        ({"data.resolution": 30}, "a multiple, such as 32"),
        (
            {"vqgan.adversarial": 1.0, "discriminator.levels": 3},
            "picture of 12 px must be at least",
        ),
        ({"model.variant": "SDD"}, "no variant 'SDD': there are SD"),
        (
            {"model.encoder": "patch"},
            "model.encoder is 'patch'; it can be convolutional or patches",
        ),
        (
            {"model.encoder": "patches"},
            "gives 48 numbers a cell: set quantizer.kind to vq or ema and quantizer.dim to that",
        ),
        (
            {"model.encoder": "patches", "quantizer.dim": 48},
            "normalize forgets how bright a patch is",
        ),
        (
            {"quantizer.scales": (1, 2), "quantizer.normalize": False},
            "ends with 2, and a picture has 3 x 3 cells of 4 px",
        ),
    ],
)
def test_wrong_settings_are_named(change, message):
    config = config_of()
    for path, value in change.items():
        section, field = path.split(".")
        config[section][field] = value
    with pytest.raises(ValueError, match=message):
        vqgan.make(config)


def test_the_warning_of_a_collapsed_codebook():
    assert vqgan.warn({"usage": 0.3}) == vqgan.warn({"model/kl": 2.0}) == ""
    assert "only 1.0% of the codes" in vqgan.warn({"model/usage": 0.01})


def test_latents_without_codes_are_no_codes():
    with pytest.raises(ValueError, match='family "diffusion"'):
        vqgan.make_codes(config_of("kl"))
