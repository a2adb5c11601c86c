"""What every family must be: each file of t2i_jax/families keeps the contract of core/family.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import ABILITIES, Context, Variables
from t2i_jax.core.registry import names_with
from t2i_jax.data import loader
from t2i_jax.families.load import load_family
from t2i_jax.pipeline import run_ability
from t2i_jax.runs import prepare
from t2i_jax.runs.converted import create_run
from t2i_jax.runs.run_folder import is_run, read_variables
from t2i_jax.training import parallel, step
from t2i_jax.training.start import make_optimizers
from tests.conftest import ROOT, write_untrained_run
from tests.tiny_stable_diffusion import make_flow_model, make_model

BATCH = 8
PICTURES_OF_ONE_SIZE = (
    *("sample", "edit", "inpaint", "reconstruct", "decode", "interpolate", "translate"),
    "stylize",
)
PUBLISHED = {"stable_diffusion": make_model, "flow_transformer": make_flow_model}


def tiny_config(family: str, folder):
    """Return the tiny version of the first config of a family, with `shapes` as its data.

    folder: for another run that it needs.

    A family without a config in configs/ fails here.
    """
    names = sorted(
        (ROOT / "configs").glob("*.py"), key=lambda p: (not p.stem.startswith("shapes"), p)
    )
    for path in names:
        if f'config.family = "{family}"' in path.read_text(encoding="utf-8"):
            break
    else:
        raise AssertionError(f"no config in configs/ is of family {family!r}")
    config = configs.copy(configs.load(f"{path}:smoke"))
    if config.data.name != "shapes":
        config.data = configs.load(f"{ROOT}/configs/shapes.py:smoke").data.to_dict()
        config.text.encoder = "none"
    if family in ("cyclegan", "adain"):
        shapes = config.data.to_dict()
        config.data = {"name": "unpaired", "resolution": 32, "first": shapes, "second": shapes}
    if family == "next_scale":
        stage = configs.load(f"{ROOT}/configs/shapes_vqgan.py:scales_smoke").to_dict()
        config.first_stage = {"run": "runs/stage", "config": stage, "cache": False}
    if family == "prior":
        embedder = configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke")
        write_untrained_run(embedder, folder / "embedder")
        config.first_stage.run = str(folder / "embedder")
    if family in PUBLISHED:
        create_run(PUBLISHED[family](folder / "tokenizer"), folder / "published")
        config.init_from = str(folder / "published")
    if "depth" in config.model:
        config.model.depth = 1
    # The simplest optimizer: a third of the time to compile a step goes into Adam's and Muon's.
    config.optim.update(name="sgd", learning_rate=0.1, warmup=0, schedule="constant", players={})
    return config.lock()


def untrained(path):
    """Return the variables of a first stage that was never trained, as `read_variables` would."""
    if is_run(path):
        return read_variables(path)
    stage = configs.load(f"{ROOT}/configs/shapes_vqgan.py:scales_smoke")
    params, extra = jax.jit(lambda: load_family(stage).init(jax.random.key(0), {}))()
    return Variables(params, extra, {})


@pytest.fixture(scope="module", params=names_with("families", "make"))
def made(request, tmp_path_factory, strided_maps):
    """(what prepare_run returned, a batch, initial params and extra) of each family in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "read_variables", untrained)
        folder = tmp_path_factory.mktemp("contract")
        prepared = prepare.prepare_run(tiny_config(request.param, folder), folder / "run")
    prepared.lock.close()
    batch = loader.make_batch(*prepared.training, np.arange(BATCH))
    params, extra = jax.jit(lambda: prepared.family.init(jax.random.key(0), batch))()
    return prepared, batch, params, extra


def context(made) -> Context:
    """Return what a loss sees in training, with `train` to be set where it is used: no array."""
    prepared, batch, params, extra = made
    ema, frozen = {"params": params, "extra": extra}, jax.tree.map(jnp.asarray, prepared.frozen)
    keys, key = jax.random.split(jax.random.key(1), BATCH), jax.random.key(2)
    return Context(extra, frozen, ema, jnp.int32(0), batch, keys, None, jnp.ones(BATCH), key)


def normal_like(params):
    """Return standard normal numbers in the place of all parameters."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    return tree.unflatten(
        [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )


def test_parts_fit_each_other(made):
    prepared, batch, params, _ = made
    family = prepared.family
    assert family.abilities.keys() <= set(ABILITIES)
    assert {*family.static, *family.texts} <= set().union(*family.settings.values())
    assert family.settings.keys() <= {*family.abilities, "sample"}
    assert set(family.losses) <= set(params) and set(family.updates) <= set(params)
    shapes, _ = jax.eval_shape(family.init, jax.random.key(0), jax.eval_shape(lambda: batch))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))


def test_losses_are_finite_and_forward_mode_agrees_with_reverse_mode(made):
    """Each player's loss is one number an example; its jvp is the gradient times the tangent."""
    prepared, _, params, _ = made
    ctx, tangents = context(made), normal_like(params)

    @jax.jit  # all are arguments: from constants, XLA computes results while it compiles
    def measure(params, tangents, ctx):
        ctx, found = ctx._replace(train=True), {}
        for player, loss in prepared.family.losses.items():

            def mean(own, player=player, loss=loss):
                per_example, (_, metrics) = loss({**params, player: own}, ctx)
                return per_example.mean(), (per_example, metrics)

            gradients, (per_example, metrics) = jax.grad(mean, has_aux=True)(params[player])
            _, forward = jax.jvp(lambda own: mean(own)[0], (params[player],), (tangents[player],))
            products = jax.tree.map(lambda g, t: (g * t).sum(), gradients, tangents[player])
            reverse = sum(jax.tree.leaves(products))
            largest = jnp.stack([jnp.abs(g).max() for g in jax.tree.leaves(gradients)]).max()
            found[player] = (per_example, metrics, forward, reverse, largest)
        return found

    steepest = 0.0
    for player, numbers in measure(params, tangents, ctx).items():
        per_example, metrics, forward, reverse, largest = numbers
        assert per_example.shape == (BATCH,) and np.isfinite(per_example).all(), player
        assert all(np.shape(x) == (BATCH,) for x in metrics.values()), player
        np.testing.assert_allclose(forward, reverse, rtol=1e-3, atol=1e-4, err_msg=player)
        assert largest > 0, player
        steepest = max(steepest, largest)
    assert steepest > 4e-3


def test_every_ability_works(made):
    prepared, batch, params, extra = made
    family, side = prepared.family, prepared.config.data.resolution
    variables = Variables(params, extra, prepared.frozen_for_drawing)
    image = batch["image"][:2]
    inputs = {
        "image": image,
        "image_b": image[::-1],
        "mask": np.ones(image.shape[:3], bool),
        "text": jax.tree.map(lambda x: x[:2], batch["text"]),
    }
    keys = jax.random.split(jax.random.key(0), 2)
    if "encode" in family.abilities:
        encoded = run_ability(family.abilities["encode"], variables, {"image": image}, None, {})
        name = "codes" if jnp.issubdtype(encoded.dtype, jnp.integer) else "latent"
        inputs[name] = encoded
    for name, ability in family.abilities.items():
        settings = dict(family.settings.get(name, {}))
        inputs |= {text: inputs["text"] for text in family.texts if settings.pop(text, None) == ""}
        static = tuple((s, settings.pop(s)) for s in family.static if s in settings)
        drawn = run_ability(ability, variables, inputs, keys, settings, static)
        assert len(drawn) == 2, name
        if name in PICTURES_OF_ONE_SIZE:
            assert drawn.dtype == np.uint8 and drawn.shape[-3:] == (side, side, 3), name


def test_devices_take_the_same_steps(made):
    """Whole steps are compared where a loss looks at its axis of devices, and of one other family.

    For the rest, steps are equal if the numbers of an example are the same in any batch: what the
    step does with them is the same for all families.
    """
    prepared, batch, params, extra = made
    family = load_family(prepared.config, "devices")
    if prepared.config.family == "diffusion" or looks_at_its_axis(family, made):
        pmap_takes_the_same_steps_as_jit(prepared, batch, (params, extra))
    else:
        halves_give_the_numbers_of_the_whole(family, made)


def losses(family, params, ctx) -> dict:
    """Return what each player's loss returns in training."""
    ctx = ctx._replace(train=True)
    return {player: loss(params, ctx) for player, loss in family.losses.items()}


def looks_at_its_axis(family, made) -> bool:
    """Return whether a loss cannot be traced outside pmap, where its axis has no devices."""
    params, ctx = made[2], context(made)
    try:
        jax.eval_shape(lambda params, ctx: losses(family, params, ctx), params, ctx)
    except NameError as error:
        assert "unbound axis name: devices" in str(error)
        return True
    return False


def halves_give_the_numbers_of_the_whole(family, made) -> None:
    """Compare losses, metrics and `extra` of a batch with those of its halves, as on two devices.

    Other weights than the first are taken: many networks begin with a last layer of zeros.
    """
    params, whole = made[2], context(made)
    params = jax.tree.map(lambda x, noise: x + 0.1 * noise, params, normal_like(params))
    measure = jax.jit(functools.partial(losses, family))
    expected = measure(params, whole)
    for rows in np.s_[: BATCH // 2], np.s_[BATCH // 2 :]:
        split = (whole.batch, whole.keys, whole.weight)
        batch, keys, weight = jax.tree.map(lambda x, rows=rows: x[rows], split)
        found = measure(params, whole._replace(batch=batch, keys=keys, weight=weight))
        for player, (per_example, (extra, metrics)) in expected.items():
            own = jax.tree.map(lambda x, rows=rows: x[rows], (per_example, metrics))
            numbers = [per_example, *metrics.values()]  # a loss can be weighted to be near 1
            assert max(map(np.ptp, numbers)) > 1e-3, player
            jax.tree.map(assert_close, found[player], (own[0], (extra, own[1])))


def pmap_takes_the_same_steps_as_jit(prepared, batch, initial) -> None:
    """Losses and weights after two steps are equal; the weights are not those of the start."""
    config, ends = prepared.config, []
    optimizers = make_optimizers(config, prepared.family)
    ready = prepared.family._replace(init=lambda *_: jax.tree.map(jnp.copy, tuple(initial)))
    start = state.create(ready, optimizers, batch, 0)
    params = jax.tree.map(np.asarray, start.params)
    for mode, devices in (("pmap", 2), ("jit", 1)):  # in this order: the second gives `start` away
        place = parallel.make(
            ConfigDict({"mode": mode, "fsdp": 1, "tensor": 1}), jax.devices()[:devices]
        )
        family = load_family(config, place.axis_name)
        current = place.put_state(start)
        update = place.compile(
            step.make_step(family, optimizers, ema_decay=0.9, axis_name=place.axis_name)
        )
        frozen = place.put_frozen(prepared.frozen)
        for _ in range(2):
            current, metrics = update(current, frozen, place.put_batch(batch))
        losses = [float(x) for name, x in metrics.items() if name.endswith("loss")]
        weights = jax.tree.map(np.asarray, place.take(current).params)
        ends.append((losses, weights))
    (losses, weights), (losses_of_jit, weights_of_jit) = ends
    np.testing.assert_allclose(losses, losses_of_jit, rtol=1e-4)
    assert largest_difference(weights, weights_of_jit) < 1e-4
    assert largest_difference(weights, params) > 1e-3


def assert_close(ours, theirs) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def largest_difference(ours, theirs) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), ours, theirs)))
