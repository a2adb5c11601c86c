"""Quantizers: codes to vectors and back, gradients in closed form, and comparisons with NumPy."""

import itertools

import jax
import numpy as np
import pytest

from t2i_jax.models import quantize

KEYS = jax.random.split(jax.random.key(0), 8)


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def apply_with_gradients(quantizer, z, params=None, extra=None):
    """Return (Quantized, gradient by z, gradient by params, weights).

    The gradients are those of the mean loss plus the sum of the vectors times `weights`.
    """
    fresh = quantizer.init(jax.random.key(1))
    params, extra = params or fresh[0], extra or fresh[1]
    weights = normal(*z.shape[:3], quantizer.dim, seed=9)

    def loss(z, params):
        found = quantizer.apply(params, extra, z, KEYS[: len(z)])
        return found.loss.mean() + (found.vectors * weights).sum(), found

    (gradients, found) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(z, params)
    return found, *gradients, weights


@pytest.mark.parametrize("levels", [2, 3, 5, 8])
def test_fsq_of_one_number(levels):
    """There are as many codes as levels, in order and evenly spaced. All occur; one vector is 0."""
    fsq = quantize.fsq((levels,))
    codes = np.asarray(
        fsq.encode({}, {}, np.linspace(-8, 8, 4001, dtype=np.float32)[None, :, None, None])
    )[0, :, 0]
    assert codes[0] == 0 and codes[-1] == levels - 1 and set(np.diff(codes)) == {0, 1}
    vectors = np.asarray(fsq.lookup({}, {}, np.arange(levels)))[:, 0]
    np.testing.assert_allclose(np.diff(vectors), 1 / (levels // 2), rtol=1e-6)
    assert vectors[0] == -1 and 0 in vectors and (vectors[-1] == 1) == (levels % 2 == 1)
    assert vectors[fsq.encode({}, {}, np.zeros((1, 1, 1, 1)))[0, 0, 0]] == 0  # 0 stays 0


def test_fsq_codes_are_all_combinations():
    levels, fsq = (4, 3, 5), quantize.fsq((4, 3, 5))
    vectors = np.asarray(fsq.lookup({}, {}, np.arange(60).reshape(6, 10))).reshape(60, 3)
    assert fsq.size == 60 and len(np.unique(vectors, axis=0)) == 60
    z = normal(16, 8, 8, 3)
    codes = np.asarray(fsq.encode({}, {}, z))
    one = [
        np.asarray(quantize.fsq((n,)).encode({}, {}, z[..., i : i + 1]))
        for i, n in enumerate(levels)
    ]
    np.testing.assert_array_equal(codes, one[0] + 4 * one[1] + 12 * one[2])
    assert len(np.unique(codes)) == 60


def test_fsq_gradient():
    """The gradient is that of tanh, shifted if the number of levels is even, without rounding."""
    z = normal(2, 3, 3, 2)
    found, gradient, _, weights = apply_with_gradients(quantize.fsq((5, 4)), z)
    reach = np.array([2.0, 1.5]) * 1.001
    shift = np.arctanh(np.array([0, 0.5]) / reach)
    np.testing.assert_allclose(
        gradient, weights * reach / 2 * (1 - np.tanh(z + shift) ** 2), rtol=1e-4, atol=1e-6
    )
    codes = quantize.fsq((5, 4)).encode({}, {}, z)
    np.testing.assert_allclose(found.vectors, quantize.fsq((5, 4)).lookup({}, {}, codes), atol=1e-6)
    assert (found.loss == 0).all()


def test_vq_without_normalizing():
    """Equation 3: the codebook is drawn to the vectors, and the vectors to their codes.

    The gradient of the decoder passes straight through.
    """
    z, codebook = normal(2, 2, 2, 3), normal(7, 3, seed=1)
    found, by_z, by_params, weights = apply_with_gradients(
        quantize.vq(7, 3, False, 0.25), z, {"codebook": codebook}
    )
    distance = np.square(z[..., None, :] - codebook).sum(-1)
    codes = distance.argmin(-1)
    assert len(np.unique(codes)) > 2
    away = z - codebook[codes]
    np.testing.assert_allclose(found.vectors, codebook[codes], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.loss, 1.25 * np.square(away).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(by_z, weights + 2 * 0.25 * away / away.size, rtol=1e-4, atol=1e-6)
    expected = np.zeros_like(codebook)
    np.add.at(expected, codes, -2 * away / away.size)
    np.testing.assert_allclose(by_params["codebook"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["vq", "ema"])
def test_normalized_codes_are_the_nearest_directions(kind):
    z, quantizer = normal(2, 4, 4, 3, scale=5), quantize.load(kind)(6, 3)
    params, extra = quantizer.init(jax.random.key(1))
    extra = {**extra, "mass": np.full(6, 0.1, np.float32), "sum": normal(6, 3, seed=1)}
    found, gradient, _, _ = apply_with_gradients(quantizer, z, params, extra)
    table = np.asarray(quantizer.lookup(params, extra, np.arange(6)))
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
    codes = (z @ table.T).argmax(-1)
    np.testing.assert_array_equal(quantizer.encode(params, extra, z), codes)
    np.testing.assert_allclose(found.vectors, table[codes], atol=1e-6)
    # The length has no influence: no gradient along it.
    np.testing.assert_allclose((gradient * z).sum(-1), 0, atol=1e-4)
    np.testing.assert_array_equal(quantizer.encode(params, extra, quantizer.latent(z)), codes)


def test_rounding_does_not_choose_between_copies_of_a_vector():
    """Codes 0 to 31 and 32 to 63 hold the same vectors, with different masses."""
    quantizer, vectors = quantize.ema(64, 4), normal(32, 4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mass = np.repeat(np.array([0.03, 0.7], np.float32), 32)
    state = {"mass": mass, "sum": mass[:, None] * np.tile(vectors, (2, 1))}
    encode = jax.jit(lambda z: quantizer.encode({}, state, z))
    for seed in range(20):
        z = vectors + normal(32, 4, scale=1e-6, seed=seed)
        np.testing.assert_array_equal(encode(z.reshape(2, 4, 4, 4)).ravel(), np.arange(32))


def test_ema_is_a_running_k_means():
    quantizer = quantize.ema(5, 2, normalize=False, decay=0.8, dead=0.0)
    state = {
        **quantizer.init(jax.random.key(0))[1],
        "mass": np.full(5, 0.2, np.float32),
        "sum": 0.2 * normal(5, 2, seed=3),
    }
    mass, total = (np.asarray(state[name], np.float64) for name in ("mass", "sum"))
    apply = jax.jit(lambda state, z: quantizer.apply({}, state, z, KEYS))
    for seed in range(6):
        z = normal(8, 3, 3, 2, seed=10 + seed)
        found = apply(state, z)
        centres, points = total / mass[:, None], z.reshape(-1, 2)
        codes = np.square(points[:, None] - centres).sum(-1).argmin(1)
        np.testing.assert_allclose(
            found.vectors.reshape(-1, 2), centres[codes], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            found.loss,
            0.25 * np.square(points - centres[codes]).reshape(8, -1).mean(1),
            rtol=1e-4,
            atol=1e-6,
        )
        one_hot = np.eye(5)[codes]
        mass, total = (
            0.8 * mass + 0.2 * one_hot.mean(0),
            0.8 * total + 0.2 * one_hot.T @ points / len(points),
        )
        state = found.extra
    np.testing.assert_allclose(state["mass"], mass, rtol=1e-4)
    np.testing.assert_allclose(state["sum"], total, rtol=1e-3, atol=1e-5)


def test_dead_codes_become_vectors_of_the_batch_far_from_their_code():
    """At first all codes are dead, and 0. Vectors are drawn in proportion to their square."""
    quantizer = quantize.ema(400, 2, normalize=False)
    z = np.zeros((8, 2, 2, 2), np.float32)
    z[1, 0, 0], z[5, 1, 1] = (2, 0), (0, 1)  # the only vectors that differ from code 0, all zeros
    zeros = {**quantizer.init(jax.random.key(0))[1], "sum": np.zeros((400, 2), np.float32)}
    after = jax.jit(lambda z: quantizer.apply({}, zeros, z, KEYS).extra)(z)
    table = np.asarray(quantizer.lookup({}, after, np.arange(400)))
    far, near = (table == (2, 0)).all(1), (table == (0, 1)).all(1)
    assert far[1:].sum() + near[1:].sum() == 399 and 0.72 < far.mean() < 0.88  # 4 in 5
    codes = quantizer.encode({}, after, z)
    np.testing.assert_allclose(
        quantizer.lookup({}, after, codes)[[1, 5], [0, 1], [0, 1]], [(2, 0), (0, 1)], atol=1e-6
    )
    alive = {**after, "mass": np.full(400, 1 / 400, np.float32), "sum": normal(400, 2, seed=4)}
    kept = jax.jit(lambda z: quantizer.apply({}, alive, z, KEYS).extra)(z)
    # A code does not die in a single batch without it.
    np.testing.assert_allclose(kept["mass"][kept["mass"] < 0.0025], 0.99 / 400, rtol=1e-5)


@pytest.mark.parametrize("bits", [1, 4, 5])
def test_lfq(bits):
    """Codes to vectors and back; the two entropies of the penalty, computed over all codes."""
    quantizer = quantize.lfq(bits, 0.25, entropy=0.3, diversity=0.7, temperature=2.0)
    every = np.arange(2**bits)
    table = np.asarray(quantizer.lookup({}, {}, every))
    np.testing.assert_array_equal(
        sorted(map(tuple, table)), list(itertools.product((-1, 1), repeat=bits))
    )
    np.testing.assert_array_equal(quantizer.encode({}, {}, table[None, None] * 0.1)[0, 0], every)
    z = normal(3, 2, 4, bits)
    found, gradient, _, weights = apply_with_gradients(quantizer, z)
    logits = -np.square(z[..., None, :] - table).sum(-1) / 2.0
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = p.mean((0, 1, 2))
    unsure, spread = -(p * np.log(p)).sum(-1).mean((1, 2)), -(mean * np.log(mean)).sum()
    np.testing.assert_allclose(found.metrics["code_entropy"], unsure, rtol=1e-4)
    np.testing.assert_allclose(found.metrics["batch_entropy"], np.full(3, spread), rtol=1e-4)
    signs = np.where(z > 0, 1, -1)
    np.testing.assert_array_equal(found.vectors, signs)
    commitment = 0.25 * np.square(z - signs).mean((1, 2, 3))
    np.testing.assert_allclose(
        found.loss, commitment + 0.3 * (unsure - 0.7 * spread), rtol=1e-4, atol=1e-6
    )
    plain = apply_with_gradients(quantize.lfq(bits, 0.25, entropy=0.0), z)[1]
    np.testing.assert_allclose(
        plain, weights + 2 * 0.25 * (z - signs) / z.size, rtol=1e-4, atol=1e-6
    )
    assert abs(gradient - plain).max() > 1e-4


def test_kl():
    mean, log_var = normal(8, 16, 16, 4), normal(8, 16, 16, 4, seed=1)
    z = np.concatenate([mean, log_var], -1)
    quantizer = quantize.kl(4)
    found, gradient, _, weights = apply_with_gradients(quantizer, z)
    np.testing.assert_allclose(
        found.loss, 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).mean((1, 2, 3)), rtol=1e-5
    )
    noise = (np.asarray(found.vectors) - mean) / np.exp(0.5 * log_var)
    assert (
        abs(noise.mean()) < 0.03
        and abs(noise.std() - 1) < 0.03
        and abs(noise[0] - noise[1]).max() > 1
    )
    np.testing.assert_allclose(gradient[..., :4], weights + mean / mean.size, rtol=1e-3, atol=1e-5)
    expected = (
        weights * noise * 0.5 * np.exp(0.5 * log_var) + 0.5 * (np.exp(log_var) - 1) / mean.size
    )
    np.testing.assert_allclose(gradient[..., 4:], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(quantizer.latent(z), mean)


@pytest.mark.parametrize("kind", ["ema", "lfq"])
def test_eight_devices_give_the_same_as_one(kind):
    """State, losses and gradients of a batch; dead codes get vectors of all devices."""
    z, fields = normal(8, 2, 2, 3), {"ema": (32, 3), "lfq": (3,)}[kind]
    alone, spread = quantize.load(kind)(*fields), quantize.load(kind)(*fields, axis_name="d")

    def step(quantizer):
        def loss(z, extra, keys):
            found = quantizer.apply({}, extra, z, keys)
            return found.loss.mean(), found

        return jax.grad(loss, has_aux=True)

    extra = alone.init(jax.random.key(0))[1]
    gradient, one = jax.jit(step(alone))(z, extra, KEYS)
    there, many = jax.pmap(step(spread), "d", in_axes=(0, None, 0))(
        z[:, None], extra, KEYS[:, None]
    )
    np.testing.assert_allclose(there.reshape(z.shape) / 8, gradient, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(many.loss.reshape(8), one.loss, rtol=1e-5, atol=1e-7)
    for name, value in one.extra.items():
        np.testing.assert_allclose(
            many.extra[name], np.stack(8 * [value]), rtol=1e-5, atol=1e-7, err_msg=name
        )


def test_invalid_fields_raise_errors():
    with pytest.raises(ValueError, match="no quantizer 'vqq': there are vq, ema, fsq, lfq, kl"):
        quantize.load("vqq")
    with pytest.raises(
        ValueError, match=r"quantizer\.size is unknown: fsq has levels, of which it needs levels"
    ):
        quantize.from_fields({"kind": "fsq", "levels": (3, 3), "size": 9})
    with pytest.raises(
        ValueError, match=r"quantizer\.dim is missing: vq has size, dim, normalize, commitment"
    ):
        quantize.from_fields({"kind": "vq", "size": 9})
    with pytest.raises(ValueError, match="2 or more"):
        quantize.fsq((8, 1))
    with pytest.raises(ValueError, match="1 or more"):
        quantize.lfq(0)
