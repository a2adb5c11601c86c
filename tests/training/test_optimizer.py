"""Schedules and first steps in closed form; which parameters are updated and regularised."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax.config import base
from t2i_jax.core.state import TrainState
from t2i_jax.runs import checkpoint
from t2i_jax.training import optimizer as optim


def config(**fields):
    settings = base().optim
    settings.update(fields)
    return settings


def test_learning_rate_closed_forms():
    linear = optim.learning_rate(config(learning_rate=1.0, warmup=4, schedule="linear"), 14)
    np.testing.assert_allclose(
        [linear(s) for s in (0, 1, 3, 4, 9, 14)], [0.2, 0.4, 0.8, 1.0, 0.5, 0.0], atol=1e-6
    )
    cosine = optim.learning_rate(config(learning_rate=2.0, warmup=0, schedule="cosine"), 10)
    np.testing.assert_allclose([cosine(s) for s in (0, 5, 10)], [2.0, 1.0, 0.0], atol=1e-6)
    constant = optim.learning_rate(config(learning_rate=0.3, warmup=1, schedule="constant"), 10)
    np.testing.assert_allclose([constant(s) for s in (0, 1, 9)], [0.15, 0.3, 0.3], atol=1e-6)
    exponential = optim.learning_rate(
        config(learning_rate=2.0, warmup=2, schedule="exponential", decay_rate=0.01), 12
    )
    np.testing.assert_allclose(
        [exponential(s) for s in (1, 2, 7, 12)], [4 / 3, 2.0, 0.2, 0.02], rtol=1e-5
    )
    places = {
        "warmup": 10,
        "schedule": "step",
        "decay_rate": 0.5,
        "decay_at": (0.3, 0.305, 0.9),
    }  # of the run, warm-up and all
    stairs = optim.learning_rate(config(learning_rate=1.0, **places), 100)
    np.testing.assert_allclose(
        [stairs(s) for s in (10, 29, 30, 31, 89, 90)], [1, 1, 0.5, 0.25, 0.25, 0.125], rtol=1e-6
    )


def test_adamw_is_optax_adamw_on_matrices_and_spares_vectors():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    ours = optim.make(
        config(
            learning_rate=0.1,
            warmup=0,
            schedule="constant",
            weight_decay=0.5,
            clip=0.0,
            b1=0.9,
            b2=0.99,
        ),
        10,
    )
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = ours.update(zero, ours.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5 * np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], np.zeros(2))


def test_muon_takes_kernels_and_leaves_tables():
    params = {
        "block": {"kernel": jnp.ones((16, 8))},
        "conv": {"kernel": jnp.ones((3, 3, 4, 8))},
        "decoder": {"head": jnp.ones((8, 8))},
        "embed": {"embedding": jnp.ones((8, 8))},
        "norm": {"scale": jnp.ones(8)},
    }
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)
    ours = optim.make(
        config(
            name="muon",
            learning_rate=1.0,
            warmup=0,
            schedule="constant",
            weight_decay=0.0,
            clip=0.0,
        ),
        10,
    )
    updates, _ = jax.jit(ours.update)(grads, ours.init(params), params)
    # An orthogonalised update has nearly equal singular values, about 0.2 * sqrt(max(in, out)).
    for name, rows in (("block", 16), ("conv", 36)):
        values = np.linalg.svd(
            np.asarray(updates[name]["kernel"]).reshape(rows, 8), compute_uv=False
        )
        assert values.max() / values.min() < 2.0
        np.testing.assert_allclose(values.mean(), 0.2 * rows**0.5, rtol=0.3)
    # The first update of Adam is the sign of the gradient.
    for name, leaf in (("decoder", "head"), ("embed", "embedding"), ("norm", "scale")):
        sign = optax.adamw(1.0, 0.9, 0.99, weight_decay=0.0, nesterov=True)
        expected, _ = sign.update(grads[name], sign.init(params[name]), params[name])
        np.testing.assert_allclose(updates[name][leaf], expected[leaf], rtol=1e-4)


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 1.0), (0.0, 200.0)])
def test_clip_bounds_what_the_optimizer_sees(clip, norm):
    params, grads = {"w": jnp.zeros(4)}, {"w": jnp.full(4, 100.0)}
    ours = optim.make(config(clip=clip, b1=0.9), 10)
    _, after = jax.jit(ours.update)(grads, ours.init(params), params)
    (first_moment,) = (leaf for leaf in jax.tree.leaves(optax.tree_utils.tree_get(after, "mu")))
    np.testing.assert_allclose(jnp.linalg.norm(first_moment), 0.1 * norm, rtol=1e-5)


def plain(**fields):
    """Settings under which an update is the rate times the optimizer's direction, nothing else."""
    return config(
        **{
            "learning_rate": 0.1,
            "warmup": 0,
            "schedule": "constant",
            "weight_decay": 0.0,
            "clip": 0.0,
            **fields,
        }
    )


def trained(settings, params, grads, steps=1, player="model"):
    """`params` after `steps` steps with the same gradients."""
    ours = optim.make(settings, 10, player)

    @jax.jit
    def step(params, state):
        updates, state = ours.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = ours.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


WEIGHTS = {"kernel": jnp.array([[0.5, -2.0], [0.001, 0.0]]), "bias": jnp.array([1.0, -1.0])}
NOTHING = jax.tree.map(jnp.zeros_like, WEIGHTS)


def test_sgd_has_momentum_and_decay_apart_from_it():
    grads = {"kernel": jnp.array([[1.0, 2.0], [-3.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}
    after = trained(plain(name="sgd", b1=0.5), WEIGHTS, grads, steps=3)
    np.testing.assert_allclose(after["bias"], [1.0 - 0.1 * 4.0 * (1 + 1.5 + 1.75), -1.0], rtol=1e-6)
    decayed = trained(plain(name="sgd", b1=0.5, weight_decay=0.2), WEIGHTS, NOTHING, steps=3)
    np.testing.assert_allclose(
        decayed["kernel"], WEIGHTS["kernel"] * (1 - 0.1 * 0.2) ** 3, rtol=1e-6
    )
    np.testing.assert_array_equal(decayed["bias"], WEIGHTS["bias"])


def test_l2_shrinks_and_l1_pulls_towards_zero_as_part_of_the_loss():
    shrunk = trained(plain(name="sgd", b1=0.0, l2=0.3), WEIGHTS, NOTHING, steps=4)
    np.testing.assert_allclose(
        shrunk["kernel"], WEIGHTS["kernel"] * (1 - 0.1 * 0.3) ** 4, rtol=1e-6
    )
    pulled = trained(plain(name="sgd", b1=0.0, l1=0.3), WEIGHTS, NOTHING)
    np.testing.assert_allclose(pulled["kernel"], [[0.47, -1.97], [0.001 - 0.03, 0.0]], rtol=1e-5)
    for after in (shrunk, pulled):
        np.testing.assert_array_equal(after["bias"], WEIGHTS["bias"])
    # Before clipping: the whole gradient, 0.3 * kernel, is cut to length 0.01.
    clipped = trained(plain(name="sgd", b1=0.0, l2=0.3, clip=0.01), WEIGHTS, NOTHING)
    np.testing.assert_allclose(
        jnp.linalg.norm(clipped["kernel"] - WEIGHTS["kernel"]), 0.1 * 0.01, rtol=1e-3
    )


def test_the_first_step_of_lion_is_the_rate_in_the_direction_of_the_sign():
    grads = {"kernel": jnp.array([[1e-3, 20.0], [-3.0, 0.0]]), "bias": jnp.array([4.0, -0.1])}
    after = trained(plain(name="lion", weight_decay=0.5), WEIGHTS, grads)
    decay = {"kernel": 0.1 * 0.5 * WEIGHTS["kernel"], "bias": 0.0}
    for name, gradient in grads.items():
        np.testing.assert_allclose(
            after[name], WEIGHTS[name] - 0.1 * jnp.sign(gradient) - decay[name], atol=1e-7
        )


def network():
    leaf = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    return {
        "text": {"embed": {"embedding": leaf}},
        "net": {"text_in": {"kernel": leaf, "bias": leaf[0]}, "out": {"kernel": leaf}},
    }


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_what_is_frozen_stays_as_it_is_to_the_bit(name):
    """No update, no decay, no regularisation, and no part in the norm that is clipped."""
    settings = plain(
        name=name, weight_decay=0.1, l1=0.1, l2=0.1, clip=1.0, freeze="^model/text/|text_in/bias"
    )
    params, grads = network(), jax.tree.map(lambda x: 0.01 * x, network())
    after = trained(
        settings,
        params,
        {**grads, "text": {"embed": {"embedding": jnp.full((4, 4), 1e9)}}},
        steps=3,
    )
    same = jax.tree.map(np.array_equal, after, params)
    expected = {
        "text": {"embed": {"embedding": True}},
        "net": {"text_in": {"kernel": False, "bias": True}, "out": {"kernel": False}},
    }
    assert same == expected
    alone = {
        "net": {
            "text_in": {"kernel": params["net"]["text_in"]["kernel"]},
            "out": params["net"]["out"],
        }
    }
    with settings.unlocked():
        settings.freeze = ""
    without = trained(settings, alone, jax.tree.map(lambda x: 0.01 * x, alone), steps=3)
    np.testing.assert_array_equal(after["net"]["out"]["kernel"], without["net"]["out"]["kernel"])


def test_the_state_of_a_frozen_part_comes_back_from_a_checkpoint(tmp_path):
    def create():
        params = {"model": jax.tree.map(jnp.asarray, network())}
        opt_state = {
            "model": optim.make(plain(name="muon", clip=1.0, freeze="text_in"), 10).init(
                params["model"]
            )
        }
        return TrainState(
            jnp.int32(3), params, opt_state, {}, {"params": params, "extra": {}}, jax.random.key(0)
        )

    whole = jax.jit(create)()
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, whole, {})
        checkpoint.wait(manager)
        got = checkpoint.restore(manager, jax.eval_shape(create), lambda tree: tree).state
    assert jax.tree.structure(got) == jax.tree.structure(whole)
    jax.tree.map(np.testing.assert_array_equal, got.opt_state, whole.opt_state)


def test_a_player_that_is_frozen_whole_stays_as_it_is():
    settings = plain(weight_decay=0.1, clip=1.0, freeze="^first/")
    params = {"first": network(), "second": network()}
    optim.check_freeze(settings, params)
    for player, frozen in (("first", True), ("second", False)):
        same = jax.tree.map(
            np.array_equal, trained(settings, network(), network(), player=player), network()
        )
        assert set(jax.tree.leaves(same)) == {frozen}


def test_patterns_that_freeze_nothing_or_all_are_refused():
    params = jax.eval_shape(lambda: {"first": network(), "second": network()})
    for pattern in ("", "second/text", r"text_in/bias$", "first"):
        optim.check_freeze(config(freeze=pattern), params)
    with pytest.raises(
        ValueError,
        match=r"'first/txt' matches no parameter; some paths: first/net/out/kernel, .*second/text/",
    ):
        optim.check_freeze(config(freeze="first/txt"), params)
    for pattern in ("kernel|bias|embedding", "."):
        with pytest.raises(ValueError, match="leaves nothing to train"):
            optim.check_freeze(config(freeze=pattern), params)
    with pytest.raises(ValueError, match=r"'\(kernel' is not a regular expression"):
        optim.check_freeze(config(freeze="(kernel"), params)
    own = config(players={"second": {"freeze": "second/texts"}})
    with pytest.raises(ValueError, match="'second/texts' matches no parameter"):
        optim.check_freeze(own, params)


def test_a_player_has_fields_of_its_own():
    settings = plain(
        name="sgd", b1=0.0, l2=0.3, players={"second": {"learning_rate": 0.4, "l2": 0}}
    ).lock()
    grads = jax.tree.map(jnp.ones_like, WEIGHTS)
    first, second = (
        trained(settings, WEIGHTS, grads, player=player) for player in ("first", "second")
    )
    np.testing.assert_allclose(first["kernel"], 0.97 * WEIGHTS["kernel"] - 0.1, rtol=1e-5)
    np.testing.assert_allclose(second["kernel"], WEIGHTS["kernel"] - 0.4, rtol=1e-5)
    assert settings.learning_rate == 0.1
    with pytest.raises(
        ValueError, match=r"optim\.players\.second = 'learning_rat'.*did you mean 'learning_rate'"
    ):
        optim.make(config(players={"second": {"learning_rat": 0.4}}), 10, "second")
    with pytest.raises(ValueError, match="did you mean 'second'"):
        optim.check_freeze(
            config(players={"secund": {"b1": 0.0}}), {"first": network(), "second": network()}
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_rate": 0.0}, "decay_rate is 0.0: the part of the learning rate that is left"),
        ({"decay_at": (0.5, 800)}, r"decay_at is \(0.5, 800\): fractions"),
    ],
)
def test_decays_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        optim.make(config(**fields), 10)


@pytest.mark.parametrize(
    ("field", "value", "near"), [("name", "adam", "adamw"), ("schedule", "cosin", "cosine")]
)
def test_unknown_names(field, value, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        optim.make(config(**{field: value}), 10)
