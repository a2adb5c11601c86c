"""Prompts as a language model rewrites them for a run: in the style of its captions.

Where the captions have a grammar, a prompt becomes the caption of the grammar that means the same.
"""

import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t2i_jax.convert import language_model, smollm2
from t2i_jax.core.arguments import MAX_SEED, whole_number
from t2i_jax.core.source import Templates
from t2i_jax.data.load import load_source, templates_of
from t2i_jax.text import grammar
from t2i_jax.text.completion import LanguageModel
from t2i_jax.text.expansion import (
    AT_ONCE,
    Answer,
    Expansion,
    ask_endpoint,
    expand,
    is_url,
    make_endpoint,
    tidy,
)
from t2i_jax.text.rewriting import instruction, make_rewriter

LOCAL = "local"
EXAMPLES = 8  # captions of the training set that the language model is shown
RIGHT = (
    'it is "local", the URL of an endpoint (http://HOST:PORT/v1), or the folder of a published '
    "language model in Llama's layout"
)


def rewritten(config: Any, prompts: Sequence[str], by: str | None, seed: int) -> list[Expansion]:
    """Return each prompt as it is drawn, and warn of those that could not be rewritten.

    config: `config.data` of the run.
    by: None to leave prompts as they are; the URL of an endpoint (`make_endpoint`), which gets the
        key in the environment variable OPENAI_API_KEY; "local" for SmolLM2-135M; or the folder of
        a published language model in Llama's layout.
    Raises ValueError for anything else, and FileNotFoundError for a model that is not there.
    """
    if by is None:
        return [Expansion(prompt, prompt) for prompt in prompts]
    if not isinstance(by, str):
        raise ValueError(f"expand is {by!r:.60}: {RIGHT}")
    seed = whole_number("seed", seed, 0, MAX_SEED)
    templates = templates_of(config)
    examples = () if templates else tuple(examples_of(config))
    ask, name, at_once = _asker(by, templates, examples, seed)
    found = expand(prompts, _checked(ask, templates), name, seed, at_once)
    if failed := [each for each in found if each.error]:
        which = "the prompt is" if len(found) == 1 else f"{len(failed)} of {len(found)} prompts are"
        warnings.warn(f"{which} drawn as given: {name}: {failed[0].error}", stacklevel=3)
    return found


def _asker(by: str, templates: Templates, examples: tuple[str, ...], seed: int):
    """Return (prompt -> Answer, the name of what is asked, how many are asked at once)."""
    if is_url(by):
        endpoint = make_endpoint(by, os.environ.get("OPENAI_API_KEY", ""))
        told = instruction(templates, examples)
        name = endpoint.url.partition("?")[0]  # a query may hold a key, and pictures keep the name
        return lambda prompt: ask_endpoint(endpoint, told, prompt, seed), name, AT_ONCE
    rewrite, name = (_kept if by == LOCAL else _local)(by, templates, examples)
    return lambda prompt: Answer(rewrite(prompt), name), name, 1


def _local(by: str, templates: Templates, examples: tuple[str, ...]):
    """Return (prompt -> what is drawn, the name of the model) of a model on this machine."""
    model = local_model(by)
    return make_rewriter(model, templates, examples), model.name


# The lines before a prompt, and the scores of words, are computed once in a process.
_kept = functools.lru_cache(maxsize=2)(_local)


def _checked(ask: Callable[[str], Answer], templates: Templates) -> Callable[[str], Answer]:
    """Return `ask` with a ValueError for an answer that is no caption of the grammar.

    Captions have small letters and no full stop, which language models often write.
    """

    def checked(prompt: str) -> Answer:
        answer = ask(prompt)
        caption = tidy(answer.text).lower().rstrip(".")
        if not grammar.fits(templates, caption):
            raise ValueError(f"its answer is not in the captions' grammar: {answer.text!r:.80}")
        return answer._replace(text=caption)

    return checked if templates else ask


def local_model(name: str) -> LanguageModel:
    """Return the language model that is meant by "local", or the one in a published folder."""
    if name == LOCAL:
        return smollm2.load()
    if not name or not Path(name).is_dir():
        raise ValueError(f"expand is {name!r:.100}: {RIGHT}")
    return language_model.load(name)


def examples_of(config: Any) -> list[str]:
    """Return some captions of the training set, or [] where its data are not on this machine."""
    try:
        captions = load_source(config, "train").captions
    except (OSError, RuntimeError, ValueError):
        return []
    places = range(0, len(captions), max(1, len(captions) // EXAMPLES))
    return [captions[i] for i in places if captions[i]][:EXAMPLES]
