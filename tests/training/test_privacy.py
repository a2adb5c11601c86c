"""DP-SGD: clipping, noise, what is accounted for and written down, and what is refused."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from scripts.same_run import arrays, differences
from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Family
from t2i_jax.data import loader
from t2i_jax.data.poisson import INCLUDED
from t2i_jax.runs import prepare
from t2i_jax.runs.lock import lock_folder
from t2i_jax.training import accountant, loop, parallel, programs, step
from t2i_jax.training.privacy import (
    batch_seed,
    check_budget,
    check_private,
    make_privacy,
    private_transforms,
    secret_key,
)
from tests.conftest import ROOT, last_values, training_on_one_device

CLIP, NOISE = 0.5, 2.0
PRIVATE = ("privacy.clip=0.1", "privacy.noise=1.0", "privacy.epsilon=20", "train.batch_size=64")
WIDE = 20_000  # parameters, so that a variance is measured


def linear(width: int) -> Family:
    """Least squares: the gradient of an example is 2 (w x - y) x, written out below."""

    def init(rng, batch):
        return {"model": {"w": jnp.zeros(width)}}, {}

    def loss(params, ctx):
        error = ctx.batch["x"] @ params["model"]["w"] - ctx.batch["y"]
        return error**2, (ctx.extra, {"error": error})

    return Family(init=init, losses={"model": loss}, abilities={}, settings={})


def one_step(batch, width, noise, accumulate=1, mode="jit", devices=None):
    """Return (the noisy gradient, metrics) of a step of plain descent of rate 1, from zero."""
    place = parallel.make(
        ConfigDict({"mode": mode, "fsdp": 1, "tensor": 1}), devices or jax.devices()[:1]
    )
    family, optimizers = linear(width), {"model": optax.sgd(1.0)}
    room = len(batch["y"])
    privacy = make_privacy(
        ConfigDict(
            {
                "privacy": {"clip": CLIP, "noise": noise, "epsilon": 8.0, "delta": 1e-6},
                "train": {"batch_size": room},
            }
        ),
        10_000,
    )
    update = step.make_step(
        family,
        optimizers,
        ema_decay=0.9,
        accumulate=accumulate,
        axis_name=place.axis_name,
        **private_transforms(privacy, room),
    )
    begun = place.put_state(state.create(family, optimizers, batch, 0))
    new, metrics = place.compile(update)(begun, {}, place.put_batch(batch))
    gradient = -np.asarray(place.take(new).params["model"]["w"])
    return gradient, {k: float(v) for k, v in metrics.items()}, privacy


def batch_of(count, width, included):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, width)) * np.exp(rng.normal(size=(count, 1)))
    y = rng.normal(size=count)
    return {"x": x.astype("f4"), "y": y.astype("f4"), INCLUDED: included.astype("f4")}


@pytest.mark.parametrize("accumulate", [1, 4])
def test_clipping_is_that_of_a_loop_over_examples(accumulate):
    """The sum of clipped gradients of the rows that hold an example, over the mean batch."""
    included = np.arange(64) % 3 != 0
    batch = batch_of(64, 3, included)
    gradient, metrics, privacy = one_step(batch, 3, 0.0, accumulate)
    total, clipped, errors = np.zeros(3), 0, []
    for x, y, counts in zip(batch["x"], batch["y"], included, strict=True):
        if counts:
            own = 2 * (0.0 - y) * x
            norm = np.sqrt((own**2).sum())
            clipped += norm > CLIP
            total += own * min(1.0, CLIP / norm)
            errors.append(y**2)
    assert 5 < clipped < included.sum() - 5  # some are clipped, and some are not
    np.testing.assert_allclose(gradient, total / privacy.expected, rtol=2e-6)
    np.testing.assert_allclose(metrics["loss"], np.mean(errors), rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_metrics_are_means_over_examples_under_pmap_too(accumulate):
    """Rows with an example come first: three devices of eight have none, and one has one."""
    batch = batch_of(64, 3, np.arange(64) < 33)
    _, metrics, _ = one_step(batch, 3, 0.0, accumulate, "pmap", jax.devices())
    np.testing.assert_allclose(metrics["loss"], (batch["y"][:33] ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["error"], -batch["y"][:33].mean(), rtol=1e-5)


def test_one_example_moves_the_sum_by_the_clipping_norm_at_most():
    included = np.ones(64)
    batch = batch_of(64, 3, included)
    batch["x"][5] *= 1e4
    with_it, _, privacy = one_step(batch, 3, 0.0)
    without, _, _ = one_step({**batch, INCLUDED: (np.arange(64) != 5).astype("f4")}, 3, 0.0)
    moved = np.linalg.norm((with_it - without) * privacy.expected)
    np.testing.assert_allclose(moved, CLIP, rtol=1e-4)


def test_noise_has_its_variance_on_any_number_of_devices():
    """With no example, a step is noise alone: noise * clip / mean batch, once for all devices."""
    batch = batch_of(64, 1, np.zeros(64))
    batch["x"] = np.zeros((64, WIDE), "f4")
    found = {}
    for name, mode, devices, accumulate in (
        ("one", "jit", jax.devices()[:1], 1),
        ("eight", "jit", jax.devices(), 1),
        ("pmap", "pmap", jax.devices(), 1),
        ("parts", "jit", jax.devices()[:1], 4),
    ):
        found[name], _, privacy = one_step(batch, WIDE, NOISE, accumulate, mode, devices)
        expected = NOISE * CLIP / privacy.expected
        np.testing.assert_allclose(found[name].std(), expected, rtol=0.02)
        np.testing.assert_allclose(found[name].mean(), 0.0, atol=4 * expected / math.sqrt(WIDE))
        np.testing.assert_array_equal(found[name], found["one"])


RUN = (*PRIVATE, "model.depth=1", "model.width=16", "text.width=16", "data.resolution=16")
RUN += ("sample.steps=1", "optim.name=adamw", "train.steps=4", "train.save_every=2")
RUN += ("train.log_every=1", "train.eval_every=0", "train.reader=threads", "train.grid=1")
RUN += ("train.batch_size=40",)  # the mean is 7 of 64


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder that holds a finished private run, "whole"."""
    folder = tmp_path_factory.mktemp("private")
    config = configs.load(f"{ROOT}/configs/shapes_diffusion.py:smoke", last_values(RUN))
    with training_on_one_device():
        loop.train(config, folder / "whole")
    return folder


def test_a_resumed_run_is_the_same_and_says_what_it_spent(smoke, data, monkeypatch, on_one_device):
    """Its noise and its batches follow from a key that is in the checkpoint alone."""
    config, seeds, read = smoke("shapes_diffusion", *RUN), [], loader.batches
    monkeypatch.setattr(loader, "batches", lambda *a: seeds.append(a[3]) or read(*a))
    shutil.copytree(data / "whole", data / "resumed")
    shutil.rmtree(data / "resumed" / "checkpoints" / "4")
    loop.train(config, data / "resumed")
    assert differences(data / "whole", data / "resumed") == []
    saved = arrays(data / "whole")
    assert len(saved) > 20
    (words,) = (value for name, value in saved.items() if "rng" in name)
    assert seeds == [int.from_bytes(np.asarray(words).tobytes(), "little")]
    assert words.tolist() != jax.random.key_data(jax.random.key(config.seed)).tolist()
    lines = [json.loads(line) for line in (data / "whole" / "metrics.jsonl").open()]
    spent = {line["step"]: line["epsilon"] for line in lines if "epsilon" in line}
    count = len(prepare.load_source(config.data, "train").captions)
    privacy = make_privacy(config, count)
    assert privacy is not None and privacy.rate < 1  # batches are drawn
    for number in (1, 2, 3, 4):
        by_hand = accountant.epsilon(privacy.expected / count, 1.0, number, 1e-6)
        assert spent[number] == pytest.approx(by_hand, rel=1e-4)
    (notes,) = (data / "whole" / "checkpoints" / "4" / "notes").glob("metadata")
    kept = json.loads(notes.read_text())["privacy"]
    assert kept == {"epsilon": privacy.spent(4), "delta": 1e-6, "noise": 1.0}


def test_a_refused_budget_changes_nothing(smoke, data):
    """A run that is there stays as it was, and a new one is not begun."""
    about = (data / "whole" / "run.json").read_bytes()
    for folder in ("whole", "new"):
        with pytest.raises(ValueError, match=r"privacy: 100,000 steps .* privacy\.noise="):
            loop.train(smoke("shapes_diffusion", *RUN, "train.steps=100000"), data / folder)
    assert (data / "whole" / "run.json").read_bytes() == about
    assert not (data / "new").exists()
    lock_folder(data / "whole").close()  # nothing else holds it


def test_no_two_runs_have_the_same_key():
    keys = [secret_key(jax.random.key(0)) for _ in range(3)]
    assert len({batch_seed(key) for key in keys}) == 3
    assert all(0 <= batch_seed(key) < 2**64 for key in keys)
    assert keys[0].dtype == jax.random.key(0).dtype and keys[0].shape == ()


def test_other_settings_change_nothing_while_it_is_off(smoke, tmp_path):
    """Without privacy.clip, the step and its batch are those of the default settings."""
    texts = []
    for number, more in enumerate([(), ("privacy.noise=9.0", "privacy.epsilon=0.1")]):
        config = smoke("shapes_diffusion", "model.depth=1", *more)
        place = parallel.make(config.parallel, jax.devices()[:1])
        prepared = prepare.prepare_run(config, tmp_path / str(number))
        prepared.lock.close()
        made = programs.make_programs(prepared, place)
        shapes = programs.step_shapes(made, prepared, place)
        assert INCLUDED not in shapes[2]
        texts.append(made.update.lower(*shapes).as_text())
    assert texts[0] == texts[1]


def told(config, count=10_000):
    with pytest.raises(ValueError) as error:
        check_budget(config, count)
    return str(error.value)


def test_a_budget_is_kept(smoke, capsys):
    config = smoke("shapes_diffusion", *PRIVATE, "train.steps=4000", "privacy.epsilon=1")
    text = told(config)
    assert "more than privacy.epsilon = 1: privacy.noise=" in text
    noise = float(text.split("privacy.noise=")[1].split()[0])
    assert noise > 1.0
    config = smoke("shapes_diffusion", *PRIVATE, f"privacy.noise={noise}", "privacy.epsilon=1")
    check_budget(config, 10_000)
    assert "private: about 14 of 10,000 examples a step" in capsys.readouterr().out
    tiny = smoke("shapes_diffusion", *PRIVATE, "privacy.delta=1e-20")
    text = "too small for 6 steps at privacy.epsilon = 20: raise delta or lower epsilon"
    assert text in told(tiny)
    small = smoke("shapes_diffusion", *PRIVATE, "train.batch_size=8")
    assert "needs more room: 64 is always enough" in told(small)
    for count in (1, 64, 65, 10**9):
        assert accountant.expected_batch(count, 64) > 0
    large = smoke("shapes_diffusion", *PRIVATE, "train.steps=2", "privacy.delta=0.001")
    with pytest.warns(UserWarning, match=r"privacy\.delta is 0\.001, more than 1 / 10,000"):
        check_budget(large, 10_000)


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("shapes_diffusion", "privacy.noise=0.0", r"privacy\.noise is 0\.0.*more than 0"),
        ("shapes_diffusion", "privacy.epsilon=0.0", r"privacy\.epsilon is 0\.0.*more than 0"),
        ("shapes_diffusion", "privacy.epsilon=-1.0", r"privacy\.epsilon is -1\.0.*at least 0"),
        ("shapes_diffusion", "privacy.delta=1.0", r"privacy\.delta is 1\.0.*less than 1"),
        ("shapes_diffusion", "optim.clip_examples=1.0", r"optim\.clip_examples.*leave it out"),
        ("shapes_diffusion", "train.spike=2.0", r"train\.spike is 2\.0.*leave it out"),
        ("shapes_gan", "seed=0", r"gan changes .* over a whole batch \(batch statistics"),
        ("shapes_vqgan", "seed=0", r"vqgan changes .* over a whole batch|several updates"),
        ("fashion_gan", "seed=0", r"gan changes|gan makes several updates in a step"),
        ("shapes_contrastive", "seed=0", r"privacy\.clip needs the gradient of each example"),
    ],
)
def test_what_cannot_be_private_is_refused(name, override, message, smoke, tmp_path):
    with pytest.raises(ValueError, match=message):
        loop.train(smoke(name, *PRIVATE, override), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_weights_that_it_starts_from_are_warned_of(smoke):
    config = smoke("shapes_diffusion", *PRIVATE, "init_from=runs/public")
    with pytest.warns(UserWarning, match="init_from is runs/public: the guarantee does not hold"):
        check_private(config, linear(3))


@pytest.mark.parametrize("change", ["updates", "players"])
def test_several_updates_in_a_step_are_refused(change, smoke):
    config, family = smoke("shapes_diffusion", *PRIVATE), linear(3)
    check_private(config, family)
    loss = family.losses["model"]
    several = {"updates": {"updates": {"model": 2}}, "players": {"losses": {"a": loss, "b": loss}}}
    with pytest.raises(ValueError, match="makes several updates in a step, and the accountant"):
        check_private(config, family._replace(**several[change]))
