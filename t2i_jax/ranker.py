"""A second run that captions, by which candidates for a picture are ranked: as CLIP in arXiv 2102.12092, section 2.6."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.by_name import having, make_of
from t2i_jax.families.family import Variables, fold_in_each
from t2i_jax.run_folder import config_of, read_run, read_variables
from t2i_jax.text import tokenizer as tokenizers


def make(config) -> Callable | None:
    """score(frozen, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> log p(caption | picture), [B] nats, by the run
    that `config.ranker` names; `frozen` has what `add_weights` added. None if it names none.

    Raises FileNotFoundError if it is no run folder, and ValueError if that run does not caption such pictures.
    """
    if not config.get("ranker"):
        return None
    own = config_of(read_run(config.ranker))
    if own.family not in (able := having("families", "make_score")):
        raise ValueError(f"ranker: {config.ranker} is a run of family {own.family!r}; it must be of {' or '.join(able)}")
    if (sees := own.data.resolution) != (draws := config.data.resolution):
        raise ValueError(f"ranker: {config.ranker} sees {sees} px, and this model draws {draws}")
    score = make_of("families", own.family, "make_score")(own)
    return lambda frozen, image, text: score(Variables(*frozen["ranker"]), image, text)


def ranked(sample: Callable, config) -> Callable:
    """The ability `sample` with one setting more, candidates: of so many pictures, that of which `config.ranker` says most."""
    score, name = make(config), config.text.encoder
    check(config.get("sample", {}).get("candidates", 1), bool(score))

    def chosen(variables: Variables, inputs, keys, *, candidates=1, **settings):
        def draw(keys):
            return sample(variables, inputs, keys, **settings)

        fit = score and (lambda image: score(variables.frozen, image, inputs["text"][name]))
        return best(draw, fit, keys, candidates)

    return chosen


def best(draw: Callable, fit: Callable | None, keys, candidates: int):
    """Of so many draw(keys) [B, ...], for each row the one of the highest fit(drawn) [B]. ValueError as of `check`.

    The first is drawn with the keys [B] as they are.
    """
    check(candidates, bool(fit))
    first = draw(keys)
    if candidates == 1:
        return first

    def better(state, i):
        kept, score = state
        new = draw(fold_in_each(keys, i))
        new_score = fit(new)
        take = new_score > score
        wide = take.reshape(-1, *[1] * (new.ndim - 1))
        return (jnp.where(wide, new, kept), jnp.where(take, new_score, score)), None

    return jax.lax.scan(better, (first, fit(first)), jnp.arange(1, candidates))[0][0]


def check(candidates: int, ranked: bool) -> None:
    """ValueError for fewer candidates than one, and for more of which nothing says how well they fit."""
    if candidates < 1:
        raise ValueError(f"sample.candidates is {candidates}: at least 1")
    if candidates > 1 and not ranked:
        raise ValueError(f"nothing ranks {candidates} candidates: name the folder of a run that captions in config.ranker")


def add_weights(frozen: dict, config, tokenizer) -> dict:
    """`frozen` with those of the run `config.ranker`, if it names one. ValueError if it knows other words than `tokenizer`."""
    if not config.get("ranker"):
        return frozen
    if tokenizer.to_str() != tokenizers.load(Path(config.ranker) / "tokenizer.json").to_str():
        raise ValueError(
            f"ranker: {config.ranker} reads other tokens than this model: train both on one data set and config.text"
        )
    return {**frozen, "ranker": jax.tree.map(np.asarray, read_variables(config.ranker, read_run(config.ranker)))}
