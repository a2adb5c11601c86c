"""Private training, DP-SGD (arXiv 1607.00133, algorithm 1), set from `config.privacy`.

Each step draws every example with the same probability (data/poisson.py), clips the gradient of
each, and adds Gaussian noise once to their sum over all devices. `accountant` says what it spends.
What is not private is in docs/privacy.md.
"""

import secrets
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Key

from t2i_jax.core.family import Family, updates_per_step, variable_shapes
from t2i_jax.training import accountant
from t2i_jax.training.gradients import add_noise, clip_to_norm
from t2i_jax.training.parallel import put_array


class Privacy(NamedTuple):
    """How a run is trained privately.

    clip: largest norm of the gradient of an example.
    noise: standard deviation of the noise on their sum, as a multiple of `clip`.
    budget: the largest epsilon.   delta: of the whole run.
    expected: mean number of examples of a step.   rate: the probability of each example.
    """

    clip: float
    noise: float
    budget: float
    delta: float
    expected: int
    rate: float

    def spent(self, steps: int) -> float:
        """Return epsilon after so many steps, at `delta`; infinite if delta leaves no room."""
        rest = self.delta - accountant.delta_of_overflow(steps, self.budget)
        return accountant.epsilon(self.rate, self.noise, steps, rest) if rest > 0 else float("inf")

    def notes(self, steps: int) -> dict[str, float]:
        """Return what a checkpoint says of its privacy, plain data."""
        return {"epsilon": self.spent(steps), "delta": self.delta, "noise": self.noise}


def make_privacy(config, count: int) -> Privacy | None:
    """Return how `config` is trained privately on `count` examples, or None if it is not.

    Raises ValueError if train.batch_size has no room for a batch of random size.
    """
    own, room = config.privacy, config.train.batch_size
    if not own.clip:
        return None
    if not (expected := accountant.expected_batch(count, room)):
        raise ValueError(
            f"train.batch_size is {room}: batches of private training have a random size, which "
            "needs more room: 64 is always enough"
        )
    return Privacy(own.clip, own.noise, own.epsilon, own.delta, expected, expected / count)


def check_private(config, family: Family) -> None:
    """Raise ValueError for a config that cannot be trained privately; also if it is not asked for.

    It needs no data, so it is checked before anything is written.
    """
    own = config.privacy
    if not own.clip:
        return
    for name in ("noise", "epsilon", "delta"):
        if own[name] <= 0 or (name == "delta" and own[name] >= 1):
            right = "more than 0, and less than 1" if name == "delta" else "more than 0"
            raise ValueError(f"privacy.{name} is {own[name]}: private training needs {right}")
    if leaves := jax.tree_util.tree_flatten_with_path(variable_shapes(config, family)[1])[0]:
        name = jax.tree_util.keystr(leaves[0][0], simple=True, separator="/")
        raise ValueError(
            f"privacy.clip: {config.family} changes {name} over a whole batch (batch statistics, "
            "codebook averages), which has no clipped share of each example; choose norms of "
            "single examples, such as LayerNorm"
        )
    if len(family.losses) * updates_per_step(family) > 1:
        raise ValueError(
            f"privacy.clip: {config.family} makes several updates in a step, and the accountant "
            "counts one use of the examples of a step; choose a family with one"
        )
    for key, value, right in (
        ("optim.clip_examples", config.optim.clip_examples, "privacy.clip takes its place"),
        ("optim.gradient_noise", config.optim.gradient_noise, "privacy.noise takes its place"),
        ("train.spike", config.train.spike, "which batches it leaves out is not accounted for"),
        ("data.sizes", config.data.get("sizes", ()), "each example has to be as likely as another"),
    ):
        if value:
            raise ValueError(f"{key} is {value} in private training: leave it out ({right})")
    if config.init_from:
        warnings.warn(
            f"init_from is {config.init_from}: the guarantee does not hold for the examples that "
            "its weights were trained on, unless it was trained privately too",
            stacklevel=2,
        )


def check_budget(config, count: int) -> None:
    """Raise ValueError if all steps spend more than privacy.epsilon; warn of a large delta.

    count: training examples.
    """
    privacy, steps = make_privacy(config, count), config.train.steps
    if privacy is None:
        return
    if privacy.delta > 1 / count:
        warnings.warn(
            f"privacy.delta is {privacy.delta:g}, more than 1 / {count:,} examples: it would allow "
            "to publish an example as it is; choose much less",
            stacklevel=2,
        )
    if (spent := privacy.spent(steps)) > privacy.budget:
        rest = privacy.delta - accountant.delta_of_overflow(steps, privacy.budget)
        if rest <= 0:
            raise ValueError(
                f"privacy.delta is {privacy.delta:g}, too small for {steps:,} steps at "
                f"privacy.epsilon = {privacy.budget:g}: raise delta or lower epsilon"
            )
        noise = accountant.noise_for(privacy.rate, steps, rest, privacy.budget)
        raise ValueError(
            f"privacy: {steps:,} steps with noise {privacy.noise:g} spend epsilon = {spent:.2f} at "
            f"delta = {privacy.delta:g}, more than privacy.epsilon = {privacy.budget:g}: "
            f"privacy.noise={noise:g} spends that"
        )
    print(
        f"private: about {privacy.expected} of {count:,} examples a step, noise {privacy.noise:g}; "
        f"all {steps:,} steps spend epsilon = {spent:.2f} at delta = {privacy.delta:g}"
    )


def secret_key(like: Key[Array, ""]) -> Key[Array, ""]:
    """Return a key from the operating system's own randomness, the same in all processes.

    Noise and batches follow from it in place of config.seed, which anybody may know.
    like: the key that it takes the place of, on the same devices.
    """
    words = np.frombuffer(secrets.token_bytes(8), np.uint32)
    if jax.process_count() > 1:
        words = np.asarray(multihost_utils.broadcast_one_to_all(words))
    return jax.random.wrap_key_data(put_array(words, jax.random.key_data(like).sharding))


def batch_seed(key: Key[Array, ""]) -> int:
    """Return the seed of the batches of a private run, as secret as its key."""
    return int.from_bytes(np.asarray(jax.random.key_data(key)).tobytes(), "little")


def private_transforms(privacy: Privacy, room: int) -> dict[str, Callable]:
    """Return the arguments `per_example` and `after_mean` of `make_step`.

    room: rows of a batch. The mean gradient is over all of them, those that fill up being zero; it
    becomes the noisy sum over the mean number of examples.
    """
    noisy = add_noise(privacy.noise * privacy.clip / privacy.expected)

    def after_mean(gradients, key):
        return noisy(jax.tree.map(lambda x: x * (room / privacy.expected), gradients), key)

    return {"per_example": clip_to_norm(privacy.clip), "after_mean": after_mean}
