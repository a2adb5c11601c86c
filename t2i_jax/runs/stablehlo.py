"""A run's sampler as one program that needs JAX alone: `jax.export` and its weights.

The folder has

    sampler.jaxexport    the sampler as StableHLO, serialised by `jax.export`
    weights.safetensors  all that it reads: parameters, untrained state and frozen parts
    tokenizer.json       the tokenizer's vocabulary and rules (Hugging Face tokenizers format)
    README.md            what the inputs are, and a program that draws with it

Weights are arguments of the program, not constants in it: the file stays small, compiles fast, and
XLA folds nothing, so the pictures are those of the pipeline (docs/sharing.md says how exactly).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from t2i_jax.core.family import Variables, get_ability
from t2i_jax.core.files import complete_files, empty_folder, make_folder, write_atomically
from t2i_jax.core.types import AnyArray
from t2i_jax.runs.batches import split_static
from t2i_jax.runs.stablehlo_card import card
from t2i_jax.runs.trained import read_trained
from t2i_jax.text.joint_tokenizer import JointTokenizer
from t2i_jax.text.prompts import prompt_inputs
from t2i_jax.weights.stored import write_file

PROGRAM, WEIGHTS = "sampler.jaxexport", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Sampler(NamedTuple):
    """A sampler and what it is called with.

    run: (weights {name: array}, tokens int32 [N, L], mask bool [N, L], seed uint32 [], first
        int32 [], settings {name: number}) -> uint8 [N, H, W, 3]. The picture in row i is the one
        that the pipeline draws at place `first` + i of all that it draws with `seed`.
    weights: {name: array}.
    tokens: of the empty caption, int32 [N, L].   mask: bool [N, L].
    settings: {name: default} of what can be changed when the program is called.
    fixed: {name: value} of what is compiled in.
    """

    run: Any
    weights: dict[str, AnyArray]
    tokens: np.ndarray
    mask: np.ndarray
    settings: dict[str, Any]
    fixed: dict[str, Any]


def export_sampler(
    workdir,
    which: str | int,
    target,
    batch: int,
    platforms: Sequence[str] = ("cpu",),
    overrides: Sequence[str] = (),
) -> Path:
    """Write the sampler of a run to the folder `target`, which may not exist yet, and return it.

    batch: pictures that one call draws.
    platforms: of PLATFORMS; the program runs on these alone.
    overrides: of the config, "sample.candidates=1": what shapes the computation is fixed with it.
    Raises ValueError for an unknown platform, for a model that cannot draw from captions and for
    one whose text is more than tokens and a mask, and as `read_trained` and `empty_folder` do.
    """
    if unknown := sorted({*platforms} - {*PLATFORMS}):
        known = ", ".join(PLATFORMS)
        raise ValueError(f"--platforms: there is no {unknown[0]!r}: there are {known}")
    folder = empty_folder(target, "--to")
    config, family, variables, tokenizer, _ = read_trained(workdir, which, overrides)
    if isinstance(tokenizer, JointTokenizer):
        raise ValueError(f"{workdir} reads each caption by two tokenizers: it cannot be exported")
    sampler = make_sampler(config, family, variables, tokenizer, batch)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), sampler.weights)
    numbers = jax.ShapeDtypeStruct((), np.uint32), jax.ShapeDtypeStruct((), np.int32)
    texts = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (sampler.tokens, sampler.mask))
    exported = export.export(jax.jit(sampler.run), platforms=tuple(platforms))(
        shapes, *texts, *numbers, sampler.settings
    )
    text = card(folder.absolute().name, config, sampler, exported)
    with complete_files(make_folder(folder)) as part:
        write_atomically(part / "tokenizer.json", tokenizer.to_str(pretty=True))
        write_file(part / WEIGHTS, {k: np.asarray(x) for k, x in sampler.weights.items()})
        write_atomically(part / "README.md", text)
        (part / PROGRAM).write_bytes(exported.serialize())
    return folder


def make_sampler(config, family, variables: Variables, tokenizer, batch: int) -> Sampler:
    """Return the sampler of a model. Raises ValueError as `export_sampler`."""
    ability = get_ability(family, "sample")
    given = family.settings["sample"]
    traced, static = split_static(family, given)
    others = {name: given[name] for name in family.texts if name in given}
    null = variables.frozen.get("null_text", {})
    inputs = prompt_inputs(tokenizer, [""] * batch, others, null, config.text)
    text = inputs.pop("text")[config.text.encoder]
    if set(text) != {"tokens", "mask"}:
        raise ValueError(f"the text of this model is {', '.join(text)}: it cannot be exported")
    leaves, tree = jax.tree_util.tree_flatten_with_path(variables)
    names = [name_of(path) for path, _ in leaves]

    def run(weights, tokens, mask, seed, first, settings):
        own = jax.tree.unflatten(tree, [weights[name] for name in names])
        key = jax.random.key(seed)
        places = first + jnp.arange(batch)
        keys = jax.vmap(lambda place: jax.random.fold_in(key, place))(places)
        captions = {"text": {config.text.encoder: {"tokens": tokens, "mask": mask}}, **inputs}
        return ability(own, captions, keys, **settings, **dict(static))

    weights = dict(zip(names, (x for _, x in leaves), strict=True))
    return Sampler(run, weights, text["tokens"], text["mask"], traced, {**dict(static), **others})


def name_of(path) -> str:
    """Return the name of a weight, "params/model/net/kernel", from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
