"""A small convolutional classifier, fitted to real pictures in half a minute, by which drawn ones are judged."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from t2i_jax.models.layers import Dense, to_unit
from t2i_jax.models.unet import space_to_depth

EPOCHS, MOST = 4, 300_000  # times that it sees each picture, and the most pictures that it sees
BATCH, RATE = 128, 3e-3
# All that the parameters depend on, besides data and seed; the number is to be raised when something else changes.
RECIPE = ("convolutions 32 64 64, dense 128", 1, EPOCHS, MOST, BATCH, RATE)


class Classifier(nn.Module):
    """uint8 pictures [B, R, R, 3], R even -> logits float32 [B, classes]."""

    classes: int

    @nn.compact
    def __call__(self, images):
        x = space_to_depth(to_unit(images), 2)  # a quarter of the places: a quarter of the arithmetic
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = space_to_depth(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2], 2)
        x = x.reshape(*x.shape[:3], 4, 32).max(3)  # max-pooling, whose own gradient is slow on CPU
        for _ in range(2):
            x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = nn.relu(Dense(128)(x.reshape(len(x), -1)))
        return Dense(self.classes, name="logits")(x)


def fit(read: Callable, labels: Sequence[int], classes: int, seed: int = 0) -> dict:
    """Parameters fitted by RECIPE to the pictures read(positions) -> uint8 [N, R, R, 3] with these labels [all].

    The same arguments give the same parameters on one machine. Raises ValueError if R is odd or there is one class only.
    """
    labels = np.asarray(labels, np.int32)
    side = read(np.zeros(1, np.int64)).shape[1]
    if side % 2 or len(np.unique(labels)) < 2:
        raise ValueError(f"a classifier needs pictures of an even side and two classes, not {side} px and {np.unique(labels)}")
    size, total = min(BATCH, len(labels)), min(EPOCHS * len(labels), MOST)
    steps = total // size
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(EPOCHS)])
    params, state = _start(jax.random.key(seed), side, classes, steps)
    for first in range(0, steps * size, size):
        rows = order[first : first + size]
        params, state = _step(params, state, read(rows), labels[rows], steps)
    return jax.device_get(params)


def predict(params: dict, images: np.ndarray) -> np.ndarray:
    """The likeliest class of each picture, uint8 [N, R, R, 3]: int64 [N]."""
    filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % BATCH, axis=0)])  # one size, one program
    parts = [_likeliest(params, filled[first : first + BATCH]) for first in range(0, len(filled), BATCH)]
    return np.concatenate([np.asarray(part, np.int64) for part in parts])[: len(images)]


def _optimizer(steps):
    return optax.adamw(optax.linear_onecycle_schedule(max(steps, 10), RATE), weight_decay=0.01)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _start(key, side, classes, steps):
    params = Classifier(classes).init(key, jnp.zeros((1, side, side, 3), jnp.uint8))["params"]
    return params, _optimizer(steps).init(params)


@functools.partial(jax.jit, static_argnames="steps")
def _step(params, state, images, labels, steps):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(_logits(params, images), labels).mean()

    updates, state = _optimizer(steps).update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


@jax.jit
def _likeliest(params, images):
    return _logits(params, images).argmax(-1)


def _logits(params, images):
    return Classifier(params["logits"]["bias"].shape[0]).apply({"params": params}, images)
