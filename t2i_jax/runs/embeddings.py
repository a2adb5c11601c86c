"""Learned embeddings that are added to a model when it draws: new tokens, by textual inversion."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from t2i_jax import config as configs
from t2i_jax.text.clip import make_towers
from t2i_jax.weights.textual_inversion import read


def with_embeddings(config: Any, tokenizer: Any, frozen: Any) -> tuple[Any, Any, Any]:
    """Return (config, tokenizer, frozen) with the tokens of the files that `config.text.add` names.

    A file is named as FILE or FILE:TOKEN; several are separated by commas. Wherever the token
    stands in a prompt, there are its vectors, one after the other.
    Raises ValueError for a token that the model knows already, and for embeddings of another model;
    FileNotFoundError, naming it, if there is no such file.
    """
    named = config.text.get("add", "")
    if not named:
        return config, tokenizer, frozen
    config, tokenizer = configs.copy(config), Tokenizer.from_str(tokenizer.to_str())
    tokenizer.encode_special_tokens = True  # not stored
    text = dict(frozen["text"])
    for each in filter(None, (part.strip() for part in named.split(","))):
        path, token = _split(each)
        if not Path(path).is_file():
            raise FileNotFoundError(f"text.add: there is no file {path}")
        towers = {name: net for name, (net, _, _) in make_towers(config.text).items()}
        own, vectors = read(path, {name: net.width for name, net in towers.items()})
        count = len(next(iter(vectors.values())))
        first = _add_token(tokenizer, token or own, count)
        with config.unlocked():
            for name, rows in vectors.items():
                table = np.asarray(text[name]["embed"]["embedding"])
                table = np.concatenate([table[:first], rows.astype(table.dtype)])
                text[name] = {**text[name], "embed": {"embedding": table}}
                config.text.towers[name] = {
                    **config.text.towers[name].to_dict(),
                    "vocab_size": len(table),
                }
    return config, tokenizer, {**frozen, "text": text}


def _split(named: str) -> tuple[str, str]:
    """Return (path, token) of FILE:TOKEN; the token is "" if only the file is named."""
    path, _, token = named.rpartition(":")
    return (path, token) if path and not Path(named).is_file() else (named, "")


def _add_token(tokenizer: Tokenizer, token: str, count: int) -> int:
    """Add a token that stands for `count` tokens; return the number of the first.

    The further ones are called TOKEN_1, TOKEN_2, ..., as diffusers does it; text/prompts.py writes
    them out.
    """
    names = [token, *(f"{token}_{i}" for i in range(1, count))]
    if known := [name for name in names if tokenizer.token_to_id(name) is not None]:
        raise ValueError(
            f"text.add: {known[0]!r} is a token of this model already; name another one: "
            "FILE:<my-token>"
        )
    first = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken(name, normalized=True) for name in names])
    return first
