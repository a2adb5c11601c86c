"""A small convolutional classifier that judges drawn pictures of classes.

It is fitted to the real training pictures in half a minute.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, UInt8
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.pictures import to_unit
from t2i_jax.core.source import Source
from t2i_jax.models.layers import Dense, space_to_depth

EPOCHS, MAX_PICTURES_SEEN = 4, 300_000  # whichever ends training first
BATCH_SIZE, LEARNING_RATE = 128, 3e-3
# All that the parameters depend on, besides the data and the seed. Raise the number when something
# else changes.
RECIPE = (
    "convolutions 32 64 64, dense 128",
    1,
    EPOCHS,
    MAX_PICTURES_SEEN,
    BATCH_SIZE,
    LEARNING_RATE,
)


class Classifier(nn.Module):
    """Classify uint8 pictures of an even side R: returns logits [B, classes]."""

    classes: int

    @nn.compact
    def __call__(self, images: UInt8[Array, "B R R 3"]) -> Float[Array, "B classes"]:
        # A quarter of the positions means a quarter of the arithmetic.
        x = space_to_depth(to_unit(images), 2)
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = space_to_depth(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2], 2)
        # Max-pooling; the gradient of `nn.max_pool` is slow on CPU.
        x = x.reshape(*x.shape[:3], 4, 32).max(3)
        for _ in range(2):
            x = nn.relu(nn.Conv(64, (3, 3))(x))
        x = nn.relu(Dense(128)(x.reshape(len(x), -1)))
        return Dense(self.classes, name="logits")(x)


def cached_classifier(training: Source) -> dict:
    """Return the parameters of a classifier fitted to the pictures of `training`.

    It is fitted once and then read from the data folder.
    Raises ValueError if the source has no classes.
    """
    if not len(training.labels):
        raise ValueError("these pictures have no classes, so there is nothing to classify them by")
    name = fingerprint(*RECIPE, training.fingerprint)[:32]
    path = data_dir() / "classifiers" / f"{name}.safetensors"
    if not path.is_file():
        count, classes = len(training.labels), len(training.classes)
        print(
            f"fitting a classifier of {classes} classes to {count:,} true pictures, by which drawn "
            f"ones are judged; it is kept in {path.parent}",
            flush=True,
        )
        params = fit(training.read, training.labels, len(training.classes))
        flat: dict[str, Any] = flatten_dict(params, sep="/")
        with atomic_path(path) as part:
            save_file(flat, part)
    return unflatten_dict(load_file(path), sep="/")


def fit(
    read: Callable, labels: Sequence[int], classes: int, seed: int = 0, pictures_seen: int = 0
) -> Any:
    """Fit a classifier by RECIPE and return its parameters.

    read: positions int [N] -> pictures uint8 [N, R, R, 3].
    labels: the class of every picture, in [0, classes).
    pictures_seen: of the whole training; 0 for that of RECIPE.
    The same arguments give the same parameters on one machine. Raises ValueError if R is odd, or
    if all labels are of one class.
    """
    targets = np.asarray(labels, np.int32)
    side = read(np.zeros(1, np.int64)).shape[1]
    if side % 2 or len(np.unique(targets)) < 2:
        raise ValueError(
            f"a classifier needs pictures of an even side and two classes, not {side} px and "
            f"{np.unique(targets)}"
        )
    size, total = min(BATCH_SIZE, len(targets)), min(EPOCHS * len(targets), MAX_PICTURES_SEEN)
    total = pictures_seen or total
    steps = total // size
    rng = np.random.default_rng(seed)
    epochs = -(-total // len(targets))
    order = np.concatenate([rng.permutation(len(targets)) for _ in range(epochs)])
    params, state = _start(jax.random.key(seed), side, classes, steps)
    batches = range(0, steps * size, size)
    for first in tqdm(batches, "fitting a classifier", unit="batch", leave=False, disable=None):
        rows = order[first : first + size]
        params, state = _step(params, state, read(rows), targets[rows], steps)
    return jax.device_get(params)


def predict(params: dict, images: UInt8[np.ndarray, "N R R 3"]) -> Int[np.ndarray, "N"]:
    """Return the most likely class of each picture."""
    # The last batch is padded, so that one program is compiled.
    padding = np.repeat(images[-1:], -len(images) % BATCH_SIZE, axis=0)
    padded = np.concatenate([images, padding])
    parts = [
        _most_likely(params, padded[first : first + BATCH_SIZE])
        for first in range(0, len(padded), BATCH_SIZE)
    ]
    return np.concatenate([np.asarray(part, np.int64) for part in parts])[: len(images)]


def _optimizer(steps):
    schedule = optax.linear_onecycle_schedule(max(steps, 10), LEARNING_RATE)
    return optax.adamw(schedule, weight_decay=0.01)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _start(key, side, classes, steps):
    params = Classifier(classes).init(key, jnp.zeros((1, side, side, 3), jnp.uint8))["params"]
    return params, _optimizer(steps).init(params)


@functools.partial(jax.jit, static_argnames="steps")
def _step(params, state, images, labels, steps):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(
            _logits(params, images), labels
        ).mean()

    updates, state = _optimizer(steps).update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


@jax.jit
def _most_likely(params, images):
    return _logits(params, images).argmax(-1)


def _logits(params, images) -> Any:
    return Classifier(params["logits"]["bias"].shape[0]).apply({"params": params}, images)
