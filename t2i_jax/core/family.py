"""The contract of a model family: plain data and a few pure functions (docs/add_a_family.md)."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypedDict, runtime_checkable

import jax
import numpy as np

from t2i_jax.core.source import Source

# Everything that some family can do. Each has one method on Pipeline and one command of main.py.
ABILITIES = (
    *("sample", "edit", "inpaint", "caption"),
    *("reconstruct", "interpolate", "encode", "decode"),
    *("embed_image", "embed_text"),
    *("upscale", "translate", "stylize", "explain", "vary"),
)


class Frozen(TypedDict, total=False):
    """What a run uses and never trains: nested dicts of arrays, by part.

    null_text: {encoder: the text of the empty caption, without a batch axis}.
    text: published weights of a text encoder.
    first_stage: of the codes or latents that the family draws.
    extractor, perceptual: a network that looks at pictures, for captioning or for a loss.
    teacher: the variables of the run that a student is distilled from.
    reranker: the variables of the run that ranks candidates; used in drawing only.
    embedder: the variables of the run whose embeddings of pictures condition the network.
    prior: the variables of the run that draws embeddings for captions; used in drawing only.
    base: the parameters that an adapter is trained on (families/lora.py); used in training only.
    """

    null_text: Mapping[str, Mapping[str, Any]]
    text: Any
    first_stage: Any
    extractor: Any
    perceptual: Any
    teacher: Any
    reranker: Any
    embedder: Any
    prior: Any
    base: Any


class Context(NamedTuple):
    """What a loss sees besides the parameters.

    extra: what training changes without a gradient (batch statistics, codebook averages).
    frozen: what is used and not trained.
    ema: {"params", "extra"}, the running averages.
    step: int32 [], the number of steps done before this one.
    batch: the dict of arrays [B, ...].
    keys: one random key an example, [B]: the source of all randomness that belongs to an example.
    train: False when only measuring: no dropout and no dropped captions. Noise and times are still
        drawn from the keys.
    weight: float32 [B], 0 for rows that only pad the batch, else 1. A loss that compares examples
        with one another leaves the others out. Training batches are never padded. Always set by
        training/step.py.
    step_key: one random key a step, the same on every device and in every part of a batch: for
        noise that is drawn once a step. Always set by training/step.py.
    """

    extra: Any
    frozen: Frozen
    ema: Any
    step: jax.Array
    batch: Mapping[str, Any]
    keys: jax.Array
    train: bool = True
    weight: Any = None
    step_key: Any = None


class Variables(NamedTuple):
    """What an ability works with: trained parameters, untrained state, and the frozen parts."""

    params: Any
    extra: Any
    frozen: Frozen


@runtime_checkable
class Loss(Protocol):
    """A player's loss: (per_example [B], (extra, {metric: [B]})).

    `params` is {player: tree}, of all players. The step takes the mean of everything.
    """

    def __call__(self, params: Any, ctx: Context) -> tuple[jax.Array, tuple[Any, dict]]: ...


@runtime_checkable
class Ability(Protocol):
    """One thing that a family can do: a pure function, fit for `jax.jit`.

    inputs: {"text": {encoder: {"tokens", "mask"}}, "image": uint8 [B, H, W, 3], ...}, as needed.
    keys: one random key an example, [B], or None where the ability draws nothing at random.
    settings: named numbers or strings; see `Family.settings` and `Family.static`.
    """

    def __call__(self, variables: Variables, inputs: Mapping, keys: Any, **settings) -> Any: ...


class Encoding(NamedTuple):
    """What a loss can take from the batch in place of "image", since nothing trained changes it.

    compute: (frozen, pictures uint8 [B, H, W, 3]) -> {name: array [B, ...]}. A loss uses
        `batch[name]` where it is there, and computes it otherwise.
    parts: the names of the frozen parts that `compute` reads.
    depends_on: plain data (JSON) that says what else the numbers depend on: the architecture, and a
        version that is raised when its code comes to give other numbers.
    """

    compute: Callable[[Frozen, Any], dict]
    parts: Sequence[str]
    depends_on: Any


def no_frozen_parts(source: Source, read_run: Callable[[str], Variables]) -> Frozen:
    """Return no frozen parts: the default of `Family.make_frozen`."""
    return {}


def unconstrained(player: str, params: Any) -> Any:
    """Return the parameters as they are: the default of `Family.constrain`."""
    return params


class Family(NamedTuple):
    """A model family.

    init: (rng, batch) -> (params, extra). `batch` is one batch of arrays or of
        `jax.ShapeDtypeStruct`s. params: {player: tree}, {"model": ...} for most.
        extra: {name: tree}, what training changes without a gradient; often {}.
    losses: {player: Loss}, in the order of update.
    abilities: {name of ABILITIES: Ability}.
        `sample` takes inputs {"text": ...} and gives uint8 [B, H, W, 3].
        `explain` takes {"text": ..., "image": ...} and gives word maps (families/word_maps.py).
    settings: {ability: {name: default}}, what the ability takes. Numbers are traced, so a new value
        compiles nothing.
    static: names of settings that shape the computation (a number of steps, a sampler's name); a
        new value compiles anew.
    texts: names of settings that are captions. The ability gets their tokens as inputs, in the form
        of "text", instead of as settings.
    make_frozen: (source, read_run) -> frozen parts as numpy arrays. Called once, before training.
        source: the training data, for what is fitted to it. read_run: (run folder) -> the Variables
        of another run.
    frozen_depends_on: names of the config sections that the frozen parts depend on. A run that
        starts from another (`init_from`) takes them from there, and must agree in these sections.
    pretrained: (params) -> params with published weights in place of random ones. Called once,
        outside jit.
    from_data: (params, frozen, columns) -> params with values that depend on the training data in
        place of random ones. columns: those of the training split. Called once, after `pretrained`.
    encoding: what can be computed of each picture once and kept on disk, or None.
    updates: {player: how often it is updated in one step}; 1 if not named. Each update of a step
        sees other examples: a batch is divided among the most updates that a player has.
    constrain: (player, params of that player) -> params, applied after each of its updates: limits
        that a gradient does not keep.
    carried: names of `extra` that the running averages carry as they are (a pool of pictures)
        instead of averaging. Arrays that are not floats are always carried.
    lower_loss_is_better: whether a lower validation loss (the sum over players) means a better
        model. In a game between players it does not.
    warn: ({metric or score: mean since the last line}) -> a warning for the user, or "".
    """

    init: Callable
    losses: Mapping[str, Loss]
    abilities: Mapping[str, Ability]
    settings: Mapping[str, Mapping[str, Any]]
    static: Sequence[str] = ()
    texts: Sequence[str] = ()
    make_frozen: Callable[[Source, Callable[[str], Variables]], Frozen] = no_frozen_parts
    frozen_depends_on: Sequence[str] = ()
    pretrained: Callable = lambda params: params
    from_data: Callable = lambda params, frozen, columns: params
    encoding: Encoding | None = None
    updates: Mapping[str, int] = MappingProxyType({})
    constrain: Callable[[str, Any], Any] = unconstrained
    carried: Sequence[str] = ()
    lower_loss_is_better: bool = True
    warn: Callable[[Mapping[str, float]], str] = lambda means: ""


def get_ability(family: Family, name: str) -> Ability:
    """Return `family.abilities[name]`, or raise a ValueError that lists what the family can do."""
    if name not in family.abilities:
        known = ", ".join(sorted(family.abilities))
        raise ValueError(f"this model cannot {name!r}; it can {known}")
    return family.abilities[name]


def parameter_shapes(config, family: Family) -> Any:
    """Return the family's parameters as shapes, {player: tree}. Nothing is computed."""
    return variable_shapes(config, family)[0]


def variable_shapes(config, family: Family) -> tuple[Any, Any]:
    """Return the shapes of what `family.init` returns: (params, extra). Nothing is computed."""
    side, text = config.data.resolution, (1, config.text.length)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    tokens = jax.ShapeDtypeStruct(text, np.int32)
    mask = jax.ShapeDtypeStruct(text, np.bool_)
    batch = {"image": image, "text": {config.text.encoder: {"tokens": tokens, "mask": mask}}}
    return jax.eval_shape(family.init, jax.random.key(0), batch)


def updates_per_step(family: Family) -> int:
    """Return into how many parts a step divides its batch: the most updates that a player has."""
    return max(family.updates.values(), default=1)
