"""Draw several candidates of a picture and keep the best, as in arXiv 2102.12092, section 2.6.

A reranker gives each candidate a score. It is a second run, of a family with `make_score`, which
tells how well pictures and captions fit (there it is CLIP). Its folder is `config.reranker.run`,
its config `config.reranker.config`, and its variables are the frozen part "reranker".
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num
from ml_collections import ConfigDict

from t2i_jax.core.family import Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import derive_keys
from t2i_jax.core.registry import defines, lookup, names_with

MAX_CANDIDATES = 1024  # a picture that says more would be drawn for hours
CANDIDATES_FIELD = Field(
    1, "how many pictures to draw for each one kept; the reranker chooses it", 1, 1024
)


def make_reranker(config) -> Callable | None:
    """Return score(frozen, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> float32 [B].

    The score is that of `make_score` of the family of the run that `config.reranker` names. Return
    None if it names none. Raises ValueError if that family has none, or the run takes pictures of
    another size.
    """
    run = config.reranker.run
    if not run:
        return None
    other: Any = ConfigDict(config.reranker.config.to_dict()).lock()
    if not defines("families", other.family, "make_score"):
        able = names_with("families", "make_score")
        raise ValueError(
            f"reranker.run: {run} is a run of family {other.family!r}; it must be of "
            f"{' or '.join(able)}"
        )
    if (takes := other.data.resolution) != (draws := config.data.resolution):
        raise ValueError(
            f"reranker.run: {run} takes pictures of {takes} px, and this model draws {draws} px"
        )
    score = lookup("families", other.family, "make_score")(other)
    return lambda frozen, image, text: score(Variables(*frozen["reranker"]), image, text)


def with_candidates(sample: Callable, config) -> Callable:
    """Return the ability `sample` with one more setting, `candidates`.

    It draws that many pictures for each caption, and keeps the one to which the reranker of
    `config` gives the highest score. Raises ValueError as `make_reranker` and `check_candidates`.
    """
    reranker, name = make_reranker(config), config.text.encoder
    check_candidates(config.get("sample", {}).get("candidates", 1), bool(reranker))

    def sample_best(variables: Variables, inputs, keys, *, candidates=1, **settings):
        def draw(keys):
            return sample(variables, inputs, keys, **settings)

        score = reranker
        if score is None:
            return keep_best(draw, None, keys, candidates)

        def score_of(image):
            return score(variables.frozen, image, inputs["text"][name])

        return keep_best(draw, score_of, keys, candidates)

    return sample_best


def keep_best(
    draw: Callable, score_of: Callable | None, keys: Key[Array, "B"], candidates: int
) -> Num[Array, "B *shape"]:
    """Return, for each row, the one of `candidates` draws that has the highest score.

    draw: (keys [B]) -> [B, ...]. The first draw uses the keys as they are.
    score_of: (drawn) -> float [B]; None if there is one candidate.
    Raises ValueError as `check_candidates` does.
    """
    check_candidates(candidates, bool(score_of))
    first = draw(keys)
    if candidates == 1 or score_of is None:
        return first

    def keep_better(state, i):
        kept, score = state
        new = draw(derive_keys(keys, i))
        new_score = score_of(new)
        better = new_score > score
        per_row = better.reshape(-1, *[1] * (new.ndim - 1))
        return (jnp.where(per_row, new, kept), jnp.where(better, new_score, score)), None

    start = (first, score_of(first))
    return jax.lax.scan(keep_better, start, jnp.arange(1, candidates))[0][0]


def check_candidates(candidates: int, can_rank: bool) -> None:
    """Raise ValueError for no candidate, too many, and several if nothing ranks them."""
    if candidates < 1:
        raise ValueError(f"sample.candidates is {candidates}: at least 1")
    if candidates > MAX_CANDIDATES:
        raise ValueError(f"sample.candidates is {candidates:,}: at most {MAX_CANDIDATES:,}")
    if candidates > 1 and not can_rank:
        raise ValueError(
            f"nothing ranks {candidates} candidates: name the folder of a run that ranks in "
            "config.reranker.run"
        )
