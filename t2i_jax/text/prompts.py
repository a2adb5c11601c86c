"""Prompts as tokens: as captions in training, or of CLIP longer ones, and with weights."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.emphasis import parse
from t2i_jax.text.encoder import make_encoder


def encode_prompts(
    tokenizer: Any, prompts: Sequence[str], config: Any, emphasis: bool = False
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """Return prompts as an ability takes them, {encoder: text}, and how many were cut.

    config: `config.text`.
    emphasis: whether brackets are weights (text/emphasis.py): then the text has "weight", float32
        [N, L], besides its tokens and mask.
    """
    chunks = make_encoder(config).chunks
    if chunks == 1:
        text, cut = tokenizers.encode(tokenizer, prompts, config.length)
    else:
        text, cut = encode_chunks(tokenizer, prompts, config.length, chunks, emphasis)
    return {config.encoder: text}, cut


def prompt_inputs(
    tokenizer: Any,
    prompts: Sequence[str],
    others: Mapping[str, str],
    null_text: Mapping[str, Mapping[str, Any]],
    config: Any,
    emphasis: bool = False,
) -> dict[str, Any]:
    """Return N prompts as inputs of an ability: "text", and for each of `others` its name.

    others: further captions, such as a negative prompt, each for all N prompts. An empty one is the
        null text.
    null_text: {encoder: the null text}.
    config, emphasis: as above.
    """

    def all_alike(text):
        return jax.tree.map(lambda x: np.repeat(x, len(prompts), axis=0), text)

    def read(texts):
        return encode_prompts(tokenizer, texts, config, emphasis)[0]

    empty = {
        encoder: {name: np.asarray(null[name])[None] for name in ("tokens", "mask")}
        for encoder, null in null_text.items()
    }
    more = {name: all_alike(read([x]) if x else empty) for name, x in others.items()}
    return {"text": read(prompts), **more}


def most_tokens(config: Any) -> int:
    """Return how many tokens of a prompt are read, with the special ones."""
    return config.length * make_encoder(config).chunks


def encode_chunks(
    tokenizer: Any, prompts: Sequence[str], length: int, most: int, emphasis: bool
) -> tuple[dict[str, np.ndarray], int]:
    """Return prompts in chunks, and how many were cut: tokens and mask [N, chunks * length].

    Each chunk has a start token, up to `length` - 2 tokens of the prompt, and an end token. All
    prompts get the same number of chunks: those of a shorter one are repeated, as often as it takes
    until all are equally long. Attention to a sequence and to its repetition are the same, so that
    no prompt depends on the others.
    most: chunks of a prompt; what does not fit is cut.
    """
    start, end = tokenizer.encode("").ids
    room, cut = length - 2, 0
    found: list[list[tuple[int, float]]] = []
    for prompt in prompts:
        parts = parse(prompt) if emphasis else [(prompt, 1.0)]
        tokenizers.refuse_broken_text([prompt])
        texts = tokenizers.written_out(tokenizer, [text for text, _ in parts])
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        tokens = [
            (token, weight)
            for encoding, (_, weight) in zip(encodings, parts, strict=True)
            for token in encoding.ids
        ]
        cut += len(tokens) > most * room
        found.append(tokens[: most * room])
    counts = [max(1, math.ceil(len(tokens) / max(room, 1))) for tokens in found]
    chunks = math.lcm(*counts)
    shape = (len(found), chunks, length)
    text = {
        "tokens": np.full(shape, tokenizers.PAD, np.int32),
        "mask": np.zeros(shape, bool),
        "weight": np.ones(shape, np.float32),
    }
    for row, (tokens, count) in enumerate(zip(found, counts, strict=True)):
        for chunk in range(chunks):
            first = chunk % count * room
            own = [(start, 1.0), *tokens[first : first + room], (end, 1.0)]
            ids, weights = zip(*own, strict=True)
            text["tokens"][row, chunk, : len(own)] = ids
            text["mask"][row, chunk, : len(own)] = True
            text["weight"][row, chunk, : len(own)] = weights
    if not emphasis:
        del text["weight"]
    return {name: x.reshape(len(found), -1) for name, x in text.items()}, cut
