"""Adversarial losses: their formulas in probabilities, their optimum, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.adversarial import losses

LOGITS = jnp.linspace(-4.0, 4.0, 9)
D = 1.0 / (1.0 + np.exp(-np.asarray(LOGITS, np.float64)))
X = np.asarray(LOGITS, np.float64)


@pytest.mark.parametrize(
    ("name", "real", "fake", "fool"),
    [
        ("minimax", -np.log(D), -np.log(1 - D), np.log(1 - D)),
        ("nonsaturating", -np.log(D), -np.log(1 - D), -np.log(D)),
        ("least_squares", (X - 1) ** 2 / 2, X**2 / 2, (X - 1) ** 2 / 2),
        ("hinge", np.maximum(0, 1 - X), np.maximum(0, 1 + X), -X),
        ("wasserstein", -X, X, -X),
    ],
)
def test_formulas(name, real, fake, fool):
    loss = losses.make_losses(name)
    for found, expected in zip((loss.real, loss.fake, loss.fool), (real, fake, fool), strict=True):
        np.testing.assert_allclose(found(LOGITS), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", losses.NAMES)
def test_players_pull_apart(name):
    """Around zero, the discriminator raises real logits and lowers fake ones.

    The generator raises its own.
    """
    loss = losses.make_losses(name)
    slopes = [float(jax.grad(lambda x, f=f: f(x).sum())(jnp.array([0.1]))[0]) for f in loss]
    assert slopes[0] < 0 < slopes[1] and slopes[2] < 0


def test_minimax_is_zero_sum_and_nonsaturating_does_not_vanish():
    minimax, nonsaturating = losses.make_losses("minimax"), losses.make_losses("nonsaturating")
    np.testing.assert_allclose(minimax.fool(LOGITS), -minimax.fake(LOGITS))
    sure = jnp.array([-20.0])  # the discriminator is sure that it is a fake
    assert abs(jax.grad(lambda x: minimax.fool(x).sum())(sure)[0]) < 1e-8
    np.testing.assert_allclose(
        jax.grad(lambda x: nonsaturating.fool(x).sum())(sure), [-1.0], rtol=1e-6
    )


def test_smoothing_moves_the_best_answer_to_real_pictures_only():
    logits = jnp.linspace(-6.0, 6.0, 12001)
    for name in ("minimax", "nonsaturating"):
        loss, plain = losses.make_losses(name, 0.1), losses.make_losses(name)
        best = logits[jnp.argmin(loss.real(logits))]
        np.testing.assert_allclose(jax.nn.sigmoid(best), 0.9, atol=1e-3)
        np.testing.assert_array_equal(loss.fake(logits), plain.fake(logits))
        np.testing.assert_array_equal(loss.fool(logits), plain.fool(logits))
    best = logits[jnp.argmin(losses.make_losses("least_squares", 0.1).real(logits))]
    assert abs(best - 0.9) < 1e-3


def test_extreme_logits_stay_finite():
    for name in losses.NAMES:
        for f in losses.make_losses(name):
            value, slope = jax.value_and_grad(lambda x, f=f: f(x).sum())(jnp.array([-1e4, 1e4]))
            assert np.isfinite(value) and np.isfinite(slope).all()


def test_refusals():
    with pytest.raises(
        ValueError,
        match=r"minimax, nonsaturating, least_squares, hinge, wasserstein; did you mean 'hinge'",
    ):
        losses.make_losses("hing")
    for name in ("hinge", "wasserstein"):
        with pytest.raises(
            ValueError, match=f"{name}.*no labels to smooth.*minimax, nonsaturating, least_squares"
        ):
            losses.make_losses(name, 0.1)
    for smoothing in (-0.1, 0.5):
        with pytest.raises(ValueError, match=r"0 to below 0\.5"):
            losses.make_losses("minimax", smoothing)


def test_a_relativistic_loss_is_of_the_difference():
    """-log sigmoid of it: log 2 for equal logits, 0 for one that is far above the other."""
    found = losses.relativistic(LOGITS, LOGITS[::-1])
    np.testing.assert_allclose(found, np.log1p(np.exp(-2 * X)), rtol=1e-5)
    np.testing.assert_allclose(losses.relativistic(LOGITS + 7, LOGITS + 7), np.log(2), rtol=1e-6)
    assert np.isfinite(losses.relativistic(1e4 * LOGITS, -1e4 * LOGITS)).all()
