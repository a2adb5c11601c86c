"""What a family is: plain data, a few pure functions. To add a family, add a file with `make(config, axis_name)`."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from t2i_jax.by_name import make_of

ABILITIES = (
    *("sample", "reconstruct", "encode", "decode", "interpolate", "caption"),
    *("embed_image", "embed_text", "inpaint", "translate"),
)


class Context(NamedTuple):
    """What a loss sees besides the parameters.

    extra: what training changes without a gradient (batch statistics, codebook averages).
    frozen: {name: tree}, what is used and not trained: "null_text", a pretrained encoder's weights as "text" and what
    `Family.make_frozen` gives.   ema: averaged {"params", "extra"}.   step: int32 [].
    batch: the dict of arrays.   keys: one random key an example, [B]: the only source of randomness.
    train: False when only measuring: no dropout, no dropped captions (noise and time are still drawn from the keys).
    """

    extra: Any
    frozen: Any
    ema: Any
    step: jax.Array
    batch: Mapping[str, Any]
    keys: jax.Array
    train: bool = True


class Variables(NamedTuple):
    """What an ability works with: the trained parameters, the untrained state and what was frozen from the start."""

    params: Any
    extra: Any
    frozen: Any


class Family(NamedTuple):
    """A model family.

    init: (rng, batch) -> (params, extra); `batch` is one batch of arrays or of `jax.ShapeDtypeStruct`s.
        `params` is keyed by player ({"model": ...} for most).
    losses: {player: loss}, in the order of update; loss(params, ctx) -> (per_example [B], (extra, metrics)),
        where metrics is a flat dict of per-example arrays [B]; the step takes every mean.
    abilities: {name of ABILITIES: ability(variables, inputs, rng, **settings)}; pure functions.
        `sample` takes inputs {"text": ...} and one random key a picture as rng [B], and gives uint8 [B, H, W, 3].
    settings: {ability: {name: default}}: what the ability takes; numbers are traced, so a new value compiles nothing.
    static: names of settings that shape the computation (a count of steps, a sampler's name) and do compile anew.
    make_frozen: (source) -> pytree of numpy arrays; called once with the training source, for what is fitted to it.
    pretrained: (params) -> params with published weights in place of random ones; called once, outside jit.
    precompute: (frozen, pictures uint8 [B, H, W, 3]) -> {name: array [B, ...]}, what a loss takes from the batch in place of
        "image" if it is there: all that depends on nothing trained, so that it can be computed once (precompute.py).
    updates: {player: how often it is updated in one step}, 1 if not named; each update of a step sees other examples, so a
        batch is divided among the most updates that a player has.
    ranked: whether a lower validation loss (of all players together) means a better model; in a game it does not.
    warn: ({metric or score: mean since the last line}) -> what a person should know of it, or "" if all is well.
    """

    init: Callable
    losses: Mapping[str, Callable]
    abilities: Mapping[str, Callable]
    settings: Mapping[str, Mapping[str, Any]]
    static: Sequence[str] = ()
    make_frozen: Callable = lambda source: {}
    pretrained: Callable = lambda params: params
    precompute: Callable | None = None
    updates: Mapping[str, int] = MappingProxyType({})
    ranked: bool = True
    warn: Callable = lambda means: ""


def load(config, axis_name: str | None = None) -> Family:
    """The family that `config.family` names. `axis_name` is the pmap axis for operations across examples, or None."""
    return make_of("families", config.family)(config, axis_name)


def ability(family: Family, name: str) -> Callable:
    """`family.abilities[name]`, or a ValueError that lists what this family can do."""
    if name not in family.abilities:
        raise ValueError(f"this model cannot {name!r}; it can {', '.join(sorted(family.abilities))}")
    return family.abilities[name]


def parts_of_batch(family: Family) -> int:
    """Into how many parts a step divides its batch: the most updates that a player has in it."""
    return max(family.updates.values(), default=1)


def over(defaults: Mapping, given: Mapping, what: str) -> dict:
    """`defaults` with the fields that were given, a whole number as a float where the default is one.

    Raises ValueError, naming those there are, for a field that is not among them.
    """
    if unknown := sorted(set(given) - set(defaults)):
        raise ValueError(f"{what}.{unknown[0]} is unknown: {what} has {', '.join(defaults)}")
    floats = {name: float(value) for name, value in given.items() if type(value) is int and type(defaults[name]) is float}
    return {**defaults, **dict(given), **floats}


def fold_in_each(keys, number: int):
    """Other keys [B], a function of these and the number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def split_keys(keys, count: int):
    """`count` independent arrays of keys [B] from one array of keys [B]."""
    return tuple(fold_in_each(keys, i) for i in range(count))
