"""Optimizers: an optax transformation from `config.optim`."""

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

from t2i_jax.core.arguments import regular_expression
from t2i_jax.core.registry import did_you_mean

SCHEDULES = ("constant", "cosine", "linear", "exponential", "step")
OPTIMIZERS = ("adamw", "lion", "muon", "sgd")


def learning_rate(config, steps: int):
    """Return the learning rate as a function of the step.

    It rises linearly over `config.warmup` steps to `config.learning_rate`, then follows
    `config.schedule`. "cosine" and "linear" fall to zero at `steps`, "exponential" to
    `config.decay_rate` of the peak. "step" multiplies by `config.decay_rate` at each of the
    fractions `config.decay_at` of the run.
    """
    peak, warmup = config.learning_rate, min(config.warmup, steps)
    rest, decay, places = max(steps - warmup, 1), config.decay_rate, config.decay_at
    if not 0 < decay <= 1:
        raise ValueError(
            f"optim.decay_rate is {decay}: the part of the learning rate that is left, more than 0 "
            "and at most 1"
        )
    if not all(0 < place < 1 for place in places):
        raise ValueError(
            f"optim.decay_at is {tuple(places)}: fractions of the run, between 0 and 1"
        )
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "exponential": optax.exponential_decay(peak, rest, decay),
        "step": lambda step: (
            peak * decay ** sum(jnp.float32(step + warmup >= place * steps) for place in places)
        ),
    }[_known(config.schedule, SCHEDULES, "optim.schedule")]
    # The first step already moves: step s of the warm-up has (s + 1) / (warmup + 1) of the peak.
    return optax.join_schedules(
        [optax.linear_schedule(peak / (warmup + 1), peak, warmup), after], [warmup]
    )


def make(config, steps: int, player: str = "model") -> optax.GradientTransformation:
    """Return what turns the gradients of one player's loss into updates.

    Fields are those of `config`, overridden by `config.players[player]`. In this order:
    1. add the gradients of `l1` * |w| and `l2` / 2 * w^2 of matrices, as if part of the loss;
    2. clip by global norm (`clip`; 0: none);
    3. the optimizer, with `weight_decay` of matrices apart from the gradients (arXiv 1711.05101).
    Parameters that `freeze` matches (see `check_freeze`) stay as they are and do not count in the
    norm.

    Muon (kellerjordan.github.io/posts/muon; arXiv 2502.16982 for the scale) takes the kernels as
    matrices, input x output. Token tables, norms and biases go to AdamW at `adam_scale` times the
    rate. Lion: arXiv 2302.06675, algorithm 2. SGD has momentum `b1`.

    Raises ValueError for an unknown name, schedule or field of a player, naming the nearest.
    """
    config = _settings(config, player)
    parts = [_regularise(config.l1, config.l2)] if config.l1 or config.l2 else []
    parts += [optax.clip_by_global_norm(config.clip)] if config.clip else []
    parts += [_optimizer(config, learning_rate(config, steps))]
    transform = optax.chain(*parts) if len(parts) > 1 else parts[0]
    if not config.freeze:
        return transform
    kinds: dict[Hashable, optax.GradientTransformation] = {
        "frozen": optax.set_to_zero(),
        "trained": transform,
    }
    return optax.partition(kinds, lambda params: _kinds(config.freeze, player, params))


def check_freeze(config, params) -> None:
    """Check the settings of `config.optim` that depend on the parameters.

    params: {player: tree} of arrays or shapes.
    `freeze` is a regular expression, searched in paths such as "model/text/embed/embedding":
    player, modules, name. Raises ValueError, listing some paths, if it matches nothing or
    everything, and if `players` names an unknown player.
    """
    for player in config.players:
        _known(player, params, "a player of optim.players")
    patterns = {player: _settings(config, player).freeze for player in params}
    kinds = {
        player: jax.tree.leaves(_kinds(patterns[player], player, tree))
        for player, tree in params.items()
    }
    paths = [
        path for player, tree in params.items() for path in jax.tree.leaves(_paths(player, tree))
    ]
    some = ", ".join(paths[:: max(len(paths) // 8, 1)])
    for pattern in filter(None, patterns.values()):
        if not any("frozen" in kinds[player] for player in params if patterns[player] == pattern):
            raise ValueError(f"optim.freeze = {pattern!r} matches no parameter; some paths: {some}")
    if not any("trained" in kinds[player] for player in params):
        raise ValueError(f"optim.freeze leaves nothing to train; some paths: {some}")


def stop_frozen(config) -> Callable | None:
    """Return (player, params) -> params, equal, through whose frozen leaves no gradient passes.

    So their gradients are not computed, and do not count in the metric `grad_norm`. Returns None if
    `config` freezes nothing.
    """
    patterns = [own.get("freeze", "") for own in config.players.values()]
    if not any([config.freeze, *patterns]):
        return None

    def stop(player, params):
        kinds = _kinds(_settings(config, player).freeze, player, params)
        return jax.tree.map(
            lambda kind, x: jax.lax.stop_gradient(x) if kind == "frozen" else x, kinds, params
        )

    return stop


def _optimizer(config, rate) -> optax.GradientTransformation:
    name, decay = _known(config.name, OPTIMIZERS, "optim.name"), config.weight_decay
    if name == "adamw":
        return optax.adamw(rate, config.b1, config.b2, weight_decay=decay, mask=_is_matrix)
    if name == "lion":
        return optax.lion(rate, config.b1, config.b2, weight_decay=decay, mask=_is_matrix)
    if name == "sgd":
        momentum = optax.trace(config.b1)
        return optax.chain(
            momentum,
            optax.add_decayed_weights(decay, _is_matrix),
            optax.scale_by_learning_rate(rate),
        )
    return muon(
        rate,
        weight_decay=decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        adam_learning_rate=lambda step: rate(step) * config.adam_scale,
        muon_weight_dimension_numbers=_muon_dimensions,
        consistent_rms=0.2,  # updates as large as AdamW's, so one learning rate serves both
    )


def _regularise(l1: float, l2: float) -> optax.GradientTransformation:
    def add(gradients, params):
        return jax.tree.map(
            lambda g, w: g + l1 * jnp.sign(w) + l2 * w if w.ndim >= 2 else g, gradients, params
        )

    return optax.stateless(add)


def _settings(config, player: str):
    """`config`, overridden by the fields of `config.players[player]`."""
    own = config.players.get(player, {})
    for name in own:
        _known(name, sorted({*config} - {"players"}), f"a field of optim.players.{player}")
    settings = config.copy_and_resolve_references()
    with settings.unlocked():
        settings.update(own)
    return settings


def _known(name: str, names, field: str) -> str:
    if name not in names:
        raise ValueError(
            f"{field} = {name!r}: it can be {', '.join(names)}{did_you_mean(name, names)}"
        )
    return name


def _names(path) -> list[str]:
    return [getattr(p, "key", str(p)) for p in path]


def _paths(player: str, params):
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join([player, *_names(path)]), params
    )


def _kinds(pattern: str, player: str, params):
    """A tree of "frozen" and "trained"."""
    freeze = regular_expression("optim.freeze", pattern)
    paths = _paths(player, params)
    return jax.tree.map(
        lambda path: "frozen" if pattern and freeze.search(path) else "trained", paths
    )


def _is_matrix(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def _muon_dimensions(params):
    def dimensions(path, x):
        if _names(path)[-1] != "kernel" or x.ndim < 2:
            return None
        return MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, params)
