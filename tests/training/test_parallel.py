"""One device, eight under jit, eight under pmap, and a sharded state: the same numbers."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core import state
from t2i_jax.families.load import load_family
from t2i_jax.training import optimizer as optim
from t2i_jax.training import parallel, step

STEPS = 20
# One block, and AdamW, which compiles faster than Muon.
SMALL = ("model.depth=1", "optim.name=adamw", "optim.learning_rate=0.003")


def curve(config, tiny_batch, mode, devices, fsdp=1, tensor=1, accumulate=1):
    """Losses of STEPS steps on the same batches."""
    place = parallel.make(ConfigDict({"mode": mode, "fsdp": fsdp, "tensor": tensor}), devices)
    family = load_family(config, place.axis_name)
    optimizers = {player: optim.make(config.optim, STEPS, player) for player in family.losses}
    example, frozen = tiny_batch(config, 16)
    if config.family == "autoregressive":
        patch = config.image_tokenizer.patch
        codebook = np.random.default_rng(1).uniform(
            -1, 1, (config.image_tokenizer.codes, patch * patch * 3)
        )
        frozen["first_stage"] = {"codebook": codebook.astype(np.float32)}
    current = place.put_state(jax.jit(lambda: state.create(family, optimizers, example, 0))())
    frozen = place.put_frozen(frozen)
    update = place.compile(
        step.make_step(
            family, optimizers, ema_decay=0.99, accumulate=accumulate, axis_name=place.axis_name
        )
    )
    losses = []
    for number in range(STEPS):
        batch, _ = tiny_batch(config, 16, seed=number % 2)
        before = jax.tree.map(lambda x: x.sharding, current)
        current, metrics = update(current, frozen, place.put_batch(batch))
        after = jax.tree.map(lambda x: x.sharding, current)
        assert before == after, "the step would be compiled again"
        losses.append(
            [float(value) for name, value in sorted(metrics.items()) if name.endswith("loss")]
        )
    weights = jax.tree.map(np.asarray, place.take(current).ema)
    return np.array(losses), weights


@pytest.mark.parametrize(
    ("name", "tolerance", "modes", "overrides"),
    [
        # fsdp of it: test_hosts.py
        (
            "shapes",
            1e-5,
            [("pmap", 1, 1), ("jit", 1, 1, 2)],
            ("model.dropout=0.1", *SMALL),
        ),
        (
            "shapes_diffusion",
            1e-5,
            [("jit", 1, 1), ("jit", 2, 2)],
            ("model.dropout=0.1", *SMALL),
        ),
        # BatchNorm, spectral norm, captions of the next example, two updates a step. Gradients of
        # gradients, which take long to compile: families/test_contract.py
        ("shapes_gan", 1e-4, [("jit", 4, 1)], ("gan.discriminator_steps=2", "gan.r1=0.0")),
    ],
)
def test_devices_and_modes_give_the_same_curve(
    name, tolerance, modes, overrides, smoke, tiny_batch
):
    """Over 20 steps, relative, with dropout and dropped captions.

    modes: (mode, fsdp, tensor, accumulated parts of a batch), each over eight devices.
    """
    config = smoke(name, "caption_dropout=0.3", *overrides)
    one, weights = curve(config, tiny_batch, "jit", jax.devices()[:1])
    assert np.ptp(one, axis=0).min() > 1e-2
    for mode in modes:
        losses, there = curve(config, tiny_batch, mode[0], jax.devices(), *mode[1:])
        np.testing.assert_allclose(losses, one, rtol=tolerance, err_msg=str(mode))
        largest = max(
            jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), there, weights))
        )
        # Adam's first steps magnify rounding in the weights; the losses are compared tightly.
        assert largest < 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "jitt", "fsdp": 1, "tensor": 1}, "jit, pmap"),
        ({"mode": "pmap", "fsdp": 2, "tensor": 1}, "parallel.fsdp needs .*jit"),
        ({"mode": "pmap", "fsdp": 1, "tensor": 2}, "parallel.tensor needs .*jit"),
        ({"mode": "jit", "fsdp": 3, "tensor": 1}, "8 devices .* can be 1, 2, 4, 8"),
        ({"mode": "jit", "fsdp": 4, "tensor": 4}, "8 devices .* can be 1, 2, 4, 8"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        parallel.make(ConfigDict(settings))
