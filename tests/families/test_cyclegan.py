"""CycleGAN: its losses against their formulas, its pools, both directions, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.adversarial.picture_pool import exchange, make_pool
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.core.random import split_keys
from t2i_jax.families import cyclegan

KEYS = jax.random.split(jax.random.key(3), 4)
RNG = np.random.default_rng(0)
BATCH = {name: RNG.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8) for name in ("image", "image_b")}
FIRST, SECOND = (np.asarray(to_unit(BATCH[name])) for name in ("image", "image_b"))
SETTINGS = {"cycle": 7.0, "identity": 3.0, "pool": 6}
# Networks whose results are known: a generator halves and shifts, a discriminator takes the mean.
PARAMS = {
    "model": {"forward": (0.5, 0.25), "backward": (1.5, -0.125)},
    "discriminator": {"first": 2.0, "second": -1.0},
}


def draw(params, direction, x):
    scale, shift = params["model"][direction]
    return scale * x + shift


def judge(params, which, x):
    return params["discriminator"][which] * x.mean(-1)[:, ::2, ::2]


def context(train=True, extra=None):
    pools = {name: make_pool(SETTINGS["pool"], 8) for name in ("first", "second")}
    extra = {"pool": pools} if extra is None else extra
    return Context(extra, {}, {}, jnp.int32(0), BATCH, KEYS, train)


def loss_of(player, ctx, settings=SETTINGS):
    return cyclegan.make_losses(settings, draw, judge, None)[player](PARAMS, ctx)


def mean(x):
    return x.mean(tuple(range(1, x.ndim)))


def test_the_loss_of_the_generators():
    """Equation 3 with least squares: (D - 1)², the cycles, and the identities of section 5.2."""
    g, f = (lambda x: 0.5 * x + 0.25), (lambda x: 1.5 * x - 0.125)

    def logits(scale, x):
        return scale * x.mean(-1)[:, ::2, ::2]

    fooled = mean((logits(-1, g(FIRST)) - 1) ** 2) + mean((logits(2, f(SECOND)) - 1) ** 2)
    cycle = mean(np.abs(f(g(FIRST)) - FIRST)) + mean(np.abs(g(f(SECOND)) - SECOND))
    identity = mean(np.abs(g(SECOND) - SECOND)) + mean(np.abs(f(FIRST) - FIRST))
    loss, (_, metrics) = loss_of("model", context())
    np.testing.assert_allclose(loss, fooled + 7 * cycle + 3 * identity, rtol=1e-5)
    np.testing.assert_allclose(metrics["cycle"], cycle, rtol=1e-5)
    np.testing.assert_allclose(metrics["identity"], identity, rtol=1e-5)
    loss, (_, metrics) = loss_of("model", context(), {**SETTINGS, "identity": 0.0})
    np.testing.assert_allclose(loss, fooled + 7 * cycle, rtol=1e-5)
    assert set(metrics) == {"fooled", "cycle"}


def test_the_loss_of_the_discriminators():
    """Half of (D(y) - 1)² + D(G(x))² for both sets, without the pools where nothing is trained."""
    expected, right = np.zeros(4), np.zeros(4)
    for scale, real, fake in ((2, FIRST, 1.5 * SECOND - 0.125), (-1, SECOND, 0.5 * FIRST + 0.25)):
        own, other = (scale * x.mean(-1)[:, ::2, ::2] for x in (real, fake))
        expected += (mean((own - 1) ** 2) + mean(other**2)) / 2
        right += (mean(own > 0.5) + mean(other < 0.5)) / 4
    ctx = context(train=False)
    loss, (extra, metrics) = loss_of("discriminator", ctx)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], right, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, extra, ctx.extra)


def test_the_discriminators_are_shown_what_the_pools_give():
    _, (extra, _) = loss_of("discriminator", context())
    loss, (after, _) = loss_of("discriminator", context(extra=extra))
    expected = np.zeros(4)
    for which, scale, real, fake, keys in (
        ("first", 2, FIRST, 1.5 * SECOND - 0.125, split_keys(KEYS, 2)[0]),
        ("second", -1, SECOND, 0.5 * FIRST + 0.25, split_keys(KEYS, 2)[1]),
    ):
        np.testing.assert_allclose(extra["pool"][which].pictures[:4], fake, atol=1e-6)
        shown, pool = exchange(extra["pool"][which], jnp.asarray(fake), keys)
        own, other = (scale * x.mean(-1)[:, ::2, ::2] for x in (real, np.asarray(shown)))
        expected += (mean((own - 1) ** 2) + mean(other**2)) / 2
        np.testing.assert_allclose(after["pool"][which].pictures, pool.pictures, atol=1e-6)
        assert after["pool"][which].filled == 6
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_devices_share_the_pools_under_pmap():
    """Four devices show, and keep in each of their pools, what one device does, bit for bit."""
    devices, size = jax.devices()[:4], 6
    many = jax.pmap(
        lambda pool, new, keys: cyclegan.exchange_on_all(pool, new, keys, "devices"),
        "devices",
        in_axes=(None, 0, 0),
        devices=devices,
    )
    one = jax.jit(lambda pool, new, keys: cyclegan.exchange_on_all(pool, new, keys, None))
    pool = alone = make_pool(size, 4)
    for step in range(3):  # 8 pictures each: the pool is full in the first
        new = jnp.asarray(RNG.normal(size=(8, 4, 4, 3)), jnp.float32)
        keys = jax.random.split(jax.random.key(step), 8)
        shown, pools = many(pool, new.reshape(4, 2, 4, 4, 3), keys.reshape(4, 2))
        expected, alone = one(alone, new, keys)
        np.testing.assert_array_equal(shown.reshape(new.shape), expected)
        for i in range(len(devices)):
            own = jax.tree.map(lambda x, i=i: x[i], pools)
            jax.tree.map(np.testing.assert_array_equal, own, alone)
        pool = jax.tree.map(lambda x: np.asarray(x[0]), pools)
    assert (np.asarray(expected) != new).any() and alone.filled == size


def test_pools_are_carried_not_averaged(smoke):
    family = cyclegan.make(smoke("emoji_cyclegan"))
    _, extra = jax.eval_shape(lambda: family.init(jax.random.key(0), {}))
    assert set(family.carried) == set(extra) == {"pool"}
    assert extra["pool"]["first"].pictures.shape == (6, 32, 32, 3)


def test_each_direction_has_its_own_generator(smoke):
    family = cyclegan.make(smoke("emoji_cyclegan", "data.resolution=8"))
    params, extra = jax.jit(lambda: family.init(jax.random.key(0), {}))()
    net = cyclegan.resnet_generator.ResNetGenerator(4, 0, 1, "none")
    drawn = {}
    for direction in ("forward", "backward"):
        drawn[direction] = family.abilities["translate"](
            Variables(params, extra, {}), {"image": BATCH["image"]}, None, direction=direction
        )
        found = net.apply({"params": params["model"][direction]}, jnp.asarray(FIRST))
        np.testing.assert_array_equal(drawn[direction], from_unit(found))
    assert (drawn["forward"] != drawn["backward"]).any()
    assert family.settings == {"translate": {"direction": "forward"}}


def test_refusals(smoke):
    with pytest.raises(ValueError, match=r"levels is 1: 2\^levels has to divide.* is 15"):
        cyclegan.make(smoke("emoji_cyclegan", "model.levels=1", "data.resolution=15"))
    with pytest.raises(ValueError, match=r"discriminator\.levels is 4"):
        cyclegan.make(smoke("emoji_cyclegan", "discriminator.levels=4"))
    with pytest.raises(ValueError, match="forward or backward"):
        smoke("emoji_cyclegan", "translate.direction=sideways")
    one_set = context()._replace(batch={"image": BATCH["image"]})
    with pytest.raises(ValueError, match=r'second set of pictures: set data\.name to "unpaired"'):
        loss_of("model", one_set)
