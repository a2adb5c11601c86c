"""Losses of tokens against probabilities worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.families.token_loss import cross_entropy, mean_where, part_cross_entropy


def test_only_the_masked_places_count():
    rng = np.random.default_rng(0)
    logits, codes = rng.normal(size=(3, 6, 4)).astype(np.float32), rng.integers(0, 4, (3, 6))
    masked = np.arange(6) < np.array([[1], [4], [6]])

    def loss(logits, codes):
        return mean_where(masked, cross_entropy(logits, codes)[0])

    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    nats = -np.log(np.take_along_axis(p, codes[..., None], -1)[..., 0])
    expected = [nats[i, : (1, 4, 6)[i]].mean() for i in range(3)]
    np.testing.assert_allclose(loss(logits, codes), expected, rtol=1e-5)
    others = np.where(masked, codes, (codes + 1) % 4)
    np.testing.assert_array_equal(loss(logits, others), loss(logits, codes))
    slope = jax.grad(lambda x: loss(x, codes).sum())(logits)
    assert (slope[~masked] == 0).all() and (slope[masked] != 0).all()


def test_parts_of_a_code():
    """Code 5 of parts (2, 3) is first part 1 and second part 2."""
    first, second = jnp.log(jnp.array([[[0.2, 0.8]]])), jnp.log(jnp.array([[[0.5, 0.4, 0.1]]]))
    nats, likeliest = part_cross_entropy((first, second), np.array([[5]]), (2, 3))
    np.testing.assert_allclose(nats[:, 0, 0], [-np.log(0.8), -np.log(0.1)], rtol=1e-6)
    assert likeliest[:, 0, 0].tolist() == [True, False]
    nats, likeliest = part_cross_entropy((second,), np.array([[0]]), ())
    np.testing.assert_allclose(nats[:, 0, 0], [-np.log(0.5)], rtol=1e-6)
    assert likeliest.tolist() == [[[True]]]
