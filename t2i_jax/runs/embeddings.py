"""New tokens of CLIP's text encoders: learned embeddings, and the token that a run is to learn."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer

from t2i_jax import config as configs
from t2i_jax.text.clip import make_towers, with_learned
from t2i_jax.text.tokenizer import standardise
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
    if learned := config.text.get("learn"):
        raise ValueError(
            f"text.add: this run learned {learned!r} itself; write that to a file (main.py convert "
            "--to=X.safetensors), and add both files to the model that it started from"
        )
    config, tokenizer, text = configs.copy(config), _copy(tokenizer), dict(frozen["text"])
    for each in filter(None, (part.strip() for part in named.split(","))):
        path, token = _split(each)
        if not Path(path).is_file():
            raise FileNotFoundError(f"text.add: there is no file {path}")
        towers = {name: net for name, (net, _, _) in make_towers(config.text).items()}
        own, vectors = read(path, {name: net.width for name, net in towers.items()})
        text = _with_token(tokenizer, text, token or own, vectors)
        for name in vectors:
            size = len(text[name]["embed"]["embedding"])
            about = {**config.text.towers[name].to_dict(), "vocab_size": size}
            config.text.towers[name] = about
    return config.lock(), tokenizer, {**frozen, "text": text}


def with_new_token(config: Any, tokenizer: Any, frozen: Any) -> tuple[Any, Any]:
    """Return (tokenizer, frozen) with the token `config.text.learn`, which means `text.start` yet.

    Raises ValueError for a token that the model knows already, for an empty start, and for a model
    that has learned a token before.
    """
    settings, tokenizer = config.text, _copy(tokenizer)
    words = tokenizer.encode(settings.start, add_special_tokens=False).ids
    if not words:
        raise ValueError("text.start is empty: name a word that the new token is to start as")
    rows = np.resize(words, settings.vectors)
    tables = {name: frozen["text"][name]["embed"]["embedding"] for name in settings.towers}
    vectors = {name: np.asarray(table)[rows] for name, table in tables.items()}
    text = _with_token(tokenizer, frozen["text"], settings.learn, vectors)
    for name, (tower, _, _) in make_towers(settings).items():
        if len(text[name]["embed"]["embedding"]) != tower.vocab_size:
            raise ValueError(
                "text.learn: the tokenizer of this model has not as many tokens as its text "
                "encoder, so it cannot learn one; if it learned one already, start from the model "
                "before"
            )
    return tokenizer, {**frozen, "text": text}


def learned_vectors(config: Any, params: Any, frozen: Any) -> dict[str, np.ndarray]:
    """Return {tower: the vectors of `config.text.learn`, float32 [vectors, D]} of a trained run."""
    towers = with_learned(frozen["text"], params["model"]["text"])
    return {
        name: np.asarray(towers[name]["embed"]["embedding"], np.float32)[-config.text.vectors :]
        for name in config.text.towers
    }


def _copy(tokenizer: Tokenizer) -> Tokenizer:
    return standardise(Tokenizer.from_str(tokenizer.to_str()))


def _with_token(tokenizer: Tokenizer, text: Any, token: str, vectors: Any) -> dict[str, Any]:
    """Return the towers with the vectors of a token that is added to the tokenizer."""
    count = len(next(iter(vectors.values())))
    first, towers = _add_token(tokenizer, token, count), {**text}
    for name, rows in vectors.items():
        table = np.asarray(text[name]["embed"]["embedding"])
        table = np.concatenate([table[:first], rows.astype(table.dtype)])
        towers[name] = {**text[name], "embed": {"embedding": table}}
    return towers


def _split(named: str) -> tuple[str, str]:
    """Return (path, token) of FILE:TOKEN; the token is "" if only the file is named."""
    path, _, token = named.rpartition(":")
    return (path, token) if path and not Path(named).is_file() else (named, "")


def _add_token(tokenizer: Tokenizer, token: str, count: int) -> int:
    """Add a token that stands for `count` tokens; return the number of the first.

    The further ones are called TOKEN_1, TOKEN_2, ..., as in diffusers (`tokenizer.written_out`).
    """
    names = [token, *(f"{token}_{i}" for i in range(1, count))]
    if known := [name for name in names if tokenizer.token_to_id(name) is not None]:
        raise ValueError(
            f"{known[0]!r} is a token of this model already: name another one, such as <my-token> "
            "(text.add=FILE:TOKEN, text.learn=TOKEN)"
        )
    first = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken(name, normalized=True) for name in names])
    return first
