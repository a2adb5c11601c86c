"""A published language model in use: which token follows a text, and how the text goes on.

The model is a causal transformer with rotary positions (Llama's layout), whose output layer is its
table of embeddings. convert/language_model.py reads it. What many texts start with is computed once
(`Start`).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tokenizers import Tokenizer

from t2i_jax.core.types import AnyArray
from t2i_jax.models.attention import head_sizes
from t2i_jax.models.transformer import Block, make_norm

MOST_TOKENS = 1024  # of a text
STEP = 32  # caches, and what they start with, are padded to a multiple of it
SMALL_STEP = 4  # as are the texts that follow; numbers of texts are padded to powers of two

# The keys and values of all blocks: {"k", "v"}.
Caches = dict[str, Float[Array, "depth rows kv_heads T head_dim"]]


class LanguageModel(NamedTuple):
    """A language model.

    name: for metadata.
    tokenizer: adds no special tokens.
    block: one block of its transformer.
    params: {"embedding": [vocabulary, width], "blocks": those of all blocks, stacked, "norm": those
        of the last norm}.
    """

    name: str
    tokenizer: Tokenizer
    block: Block
    params: Mapping[str, Any]


class Start(NamedTuple):
    """What the transformer computed of the text that others start with.

    count: tokens of that text.
    caches: those of all blocks, with room for the tokens that follow.
    """

    count: int
    caches: Caches


def make_model(name: str, tokenizer: Tokenizer, fields: Mapping, params: Mapping) -> LanguageModel:
    """Return the language model of `convert.language_model`'s fields and parameters."""
    sizes = fields["model"]
    trunk = dict(params["trunk"])
    norm = trunk.pop("norm")
    blocks = [trunk[f"block_{i}"] for i in range(sizes["depth"])]
    own = {
        "embedding": params["text"]["embed"]["embedding"],
        "blocks": jax.tree.map(lambda *each: np.stack(each), *blocks),
        "norm": norm,
    }
    return LanguageModel(
        name, tokenizer, Block(sizes["heads"], **sizes["block"]), jax.device_put(own)
    )


@functools.partial(jax.jit, static_argnums=0)
def _run(
    block: Block, params, tokens: Int[AnyArray, "B S"], caches: dict, position: Int[Array, ""]
) -> tuple[Float[Array, "B S width"], dict]:
    """Run tokens that stand at `position` and after it. Return (the output, the new caches).

    The blocks are a loop, which compiles faster than thirty of them.
    caches: `Caches` of B rows, or of one row that is before all of them.
    """
    x = params["embedding"][tokens]
    before = jax.tree.map(
        lambda c: jnp.broadcast_to(c, (c.shape[0], len(tokens), *c.shape[2:])), caches
    )
    mask = causal_mask(tokens.shape[1], position, caches["k"].shape[3])

    def step(x, layer):
        own, cache = layer
        return block.apply({"params": own}, x, mask, None, cache, position)

    out: Any  # flax says less of what `apply` returns
    after: Any
    out, after = jax.lax.scan(step, x, (params["blocks"], before))
    norm: Any = make_norm(block.norm, block.epsilon, block.dtype, "norm")
    return norm.apply({"params": params["norm"]}, out), after


def _empty_caches(model: LanguageModel, places: int) -> Caches:
    depth, width = model.params["blocks"]["mlp_norm"]["scale"].shape
    block = model.block
    heads, channels = head_sizes(width, block.heads, block.kv_heads, block.head_dim)
    shape = (depth, 1, heads, places, channels)
    return {name: jnp.zeros(shape, block.dtype) for name in ("k", "v")}


def causal_mask(count: int, position: Int[Array, ""], places: int) -> Bool[Array, "1 1 S T"]:
    """Return which of `places` each of `count` tokens attends to: its own and those before it."""
    queries = position + jnp.arange(count)
    return (jnp.arange(places) <= queries[:, None])[None, None]


@jax.jit
def _log_probs(embedding, x: Float[Array, "*n width"]) -> Float[Array, "*n V"]:
    return jax.nn.log_softmax(x @ embedding.T)


def start(model: LanguageModel, text: str, room: int) -> Start:
    """Run the text that others start with.

    room: tokens that the longest of them adds.
    Raises ValueError if the text is empty, or too long.
    """
    tokens = model.tokenizer.encode(text, add_special_tokens=False).ids
    if not 0 < len(tokens) <= MOST_TOKENS - room:
        raise ValueError(
            f"a text of {len(tokens)} tokens: there can be from 1 to {MOST_TOKENS - room}"
        )
    padded = _padded(tokens, STEP)
    places = padded.shape[1] + -(-room // STEP) * STEP
    caches = _empty_caches(model, places)
    # The keys of the padding are overwritten by what follows, and not attended to until then.
    _, caches = _run(model.block, model.params, padded, caches, jnp.int32(0))
    return Start(len(tokens), caches)


def next_log_probs(
    model: LanguageModel, begun: Start, texts: Sequence[str]
) -> Float[np.ndarray, "N V"]:
    """Return the log-probabilities of the token after `begun` and each text, float32.

    Raises ValueError for a text that is longer than the room of `begun`.
    """
    tokens, mask = _rows(model, texts)
    room = (begun.caches["k"].shape[3] - begun.count) // SMALL_STEP * SMALL_STEP
    if tokens.shape[1] > room:
        raise ValueError(f"a text of {mask.sum(1).max()} tokens: there can be at most {room}")
    position = jnp.int32(begun.count)
    x, _ = _run(model.block, model.params, tokens, begun.caches, position)
    last = x[np.arange(len(texts)), mask.sum(1)[: len(texts)] - 1]
    return np.asarray(_log_probs(model.params["embedding"], last))


def _rows(
    model: LanguageModel, texts: Sequence[str]
) -> tuple[Int[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
    """Return (tokens, mask) of texts, padded so that other texts seldom compile a new program."""
    ids = [each.ids for each in model.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    longest = -(-max(map(len, ids)) // SMALL_STEP) * SMALL_STEP
    size = 1 << (len(ids) - 1).bit_length()
    tokens, mask = np.zeros((size, longest), np.int32), np.zeros((size, longest), bool)
    for row, own in enumerate(ids):
        tokens[row, : len(own)], mask[row, : len(own)] = own, True
    return tokens, mask


def _padded(tokens: Sequence[int], step: int) -> Int[np.ndarray, "1 S"]:
    """Return tokens as one row, with zeros after them up to a multiple of `step`."""
    padded = np.zeros((1, -(-len(tokens) // step) * step), np.int32)
    padded[0, : len(tokens)] = tokens
    return padded


def complete(model: LanguageModel, begun: Start, text: str, most: int) -> str:
    """Go on after `begun` and `text` with the most likely tokens, up to the end of the line.

    most: tokens to write, less than the room of `begun`.
    Raises ValueError for a text that is empty, or leaves no room for them.
    """
    tokens = model.tokenizer.encode(text, add_special_tokens=False).ids
    places = begun.caches["k"].shape[3]
    room = places - begun.count - most - STEP
    if not 0 < len(tokens) <= room:
        raise ValueError(f"a text of {len(tokens)} tokens: there can be from 1 to {room}")
    position = jnp.int32(begun.count)
    x, caches = _run(model.block, model.params, _padded(tokens, STEP), begun.caches, position)
    token = _log_probs(model.params["embedding"], x[0, len(tokens) - 1]).argmax()
    ends = jnp.asarray(_ends(model.tokenizer, len(model.params["embedding"])))
    after = position + len(tokens)
    written = np.asarray(_write(model.block, most, model.params, token, caches, after, ends))
    return model.tokenizer.decode(written[written >= 0].tolist()).partition("\n")[0].strip()


def _ends(tokenizer: Tokenizer, count: int) -> Bool[np.ndarray, "V"]:
    """Return which tokens end a line: the special ones, and those with a line break in them."""
    vocabulary, ends = tokenizer.get_vocab(), np.zeros(count, bool)
    special = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    for text, id in vocabulary.items():
        ends[id] = id in special or "Ċ" in text  # the byte-level letter of a line break
    return ends


@functools.partial(jax.jit, static_argnums=(0, 1))
def _write(block, most: int, params, first, caches, position, ends) -> Int[Array, "most"]:
    """Return the most likely tokens from `first` on, -1 from the end of the line on."""

    def go_on(state):
        i, token, _, _ = state
        return (i < most) & ~ends[token]

    def step(state):
        i, token, caches, written = state
        written = written.at[i].set(token)
        x, caches = _run(block, params, token[None, None], caches, position + i)
        token = _log_probs(params["embedding"], x[0, 0]).argmax()
        return i + 1, token, caches, written

    written = jnp.full(most, -1, jnp.int32)
    return jax.lax.while_loop(go_on, step, (0, first.astype(jnp.int32), caches, written))[-1]
