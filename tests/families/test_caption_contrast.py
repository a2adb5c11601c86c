"""Which caption belongs to which picture: the loss against its formula, and what it compares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.text import TextCondition
from t2i_jax.families import caption_contrast
from t2i_jax.models import dcgan, stylegan2

PARAMS = {"image": {"kernel": jnp.eye(4, 128), "bias": jnp.zeros(128)}}
PARAMS["caption"] = PARAMS["image"]
TOKENS = np.array([[2, 3], [4, 3], [2, 3]])  # the first and the last are equal


def contrasted(features, pooled, tokens=TOKENS):
    loss, found = caption_contrast.caption_contrast(
        PARAMS, features, pooled, tokens, jnp.ones(len(tokens)), None
    )
    return np.asarray(loss), np.asarray(found)


def test_the_loss_is_the_cross_entropy_of_cosines_both_ways():
    rng = np.random.default_rng(0)
    features, pooled = rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 4))
    loss, found = contrasted(jnp.asarray(features), jnp.asarray(pooled))
    a, b = features.reshape(3, 4), pooled
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logits = 10.0 * a @ b.T
    counts = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)  # equal captions are left out

    def cross_entropy(logits):
        return np.log((np.exp(logits) * counts).sum(1)) - np.diag(logits)

    expected = (cross_entropy(logits) + cross_entropy(logits.T)) / 2
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    best = np.where(counts, logits, -np.inf).argmax(1)
    np.testing.assert_array_equal(found, best == np.arange(3))


def test_only_the_direction_of_a_vector_counts():
    same = jnp.eye(3, 4)
    loss, found = contrasted(5.0 * same, same)
    assert (found == 1).all() and (loss < 1e-3).all()
    np.testing.assert_allclose(loss, contrasted(same, same)[0], rtol=1e-5)
    # A picture at a right angle to its own caption and to the only other one.
    np.testing.assert_allclose(contrasted(same[::-1], same)[0][[0, 2]], np.log(2), rtol=1e-5)


@pytest.mark.parametrize(
    "discriminator",
    [
        dcgan.Discriminator(width=4, levels=1, norm="none"),
        stylegan2.make_players({"base_channels": 64, "max_channels": 8}, 8)[1],
    ],
    ids=["dcgan", "stylegan2"],
)
def test_features_come_from_the_picture_alone(discriminator):
    """Else the features would give the caption away, and nothing would be learned from it."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    sequence = jax.random.normal(jax.random.key(1), (2, 3, 8))
    text = TextCondition(pooled=sequence.mean(1), sequence=sequence, mask=jnp.ones((2, 3), bool))
    variables = discriminator.init(jax.random.key(2), x, text, False)
    other = jax.tree.map(lambda a: a[::-1], text)
    logits, features = discriminator.apply(variables, x, text, False)
    other_logits, same = discriminator.apply(variables, x, other, False)
    np.testing.assert_array_equal(features, same)
    assert abs(logits - other_logits).max() > 1e-4
