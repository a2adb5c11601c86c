"""CLIP's text encoders as they condition Stable Diffusion 1, 2 and XL. They are never trained.

The weights and the tokenizer are those of a published model (convert/diffusers.py). A run folder
holds both.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.models.clip import TEXT_VARIANTS, TextTower
from t2i_jax.models.variants import fields_of
from t2i_jax.text.encoder import LENGTH

FINAL, BEFORE_LAST = -1, -2  # of the hidden states: Stable Diffusion 1 and 2, and XL
MOST_CHUNKS = 4  # of a prompt: 300 tokens


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for clip."""
    del config
    meaning = (
        "{name: fields of TextTower or a variant; hidden: the hidden state that is used; pad: the "
        "token that fills a caption up}"
    )
    towers = {"text_encoder": {"variant": "ViT-L/14", "hidden": FINAL, "pad": 49407}}
    added = "learned embeddings of new tokens, where it draws: FILE[:TOKEN],FILE[:TOKEN]"
    return {
        "length": LENGTH,
        "towers": Field(towers, meaning),
        "add": Field("", added),
        "learn": Field("", "a new token, whose vectors an adapter learns: lora.paths=learned"),
        "vectors": Field(1, "of the new token", 1, 64),
        "start": Field("object", "what the new token means before it is learned"),
    }


def make(config) -> TextEncoder:
    """Return the encoder of `config.towers`.

    The sequence is that of all towers, channel by channel; the pooled vector is that of the last
    tower. A text of which no token is known (its mask is False) is encoded as zeros, as Stable
    Diffusion XL has it for the null text.

    A text of several times `config.length` tokens is encoded in chunks of that length, as the
    programs that users know do it. The sequences follow one another, and the pooled vector is that
    of the first chunk. For its "weight" see `encode_towers`.

    With `config.learn`, the last `config.vectors` rows of each tower's table of tokens are those of
    a new token (runs/embeddings.py). What is added to them is the parameter "learned" of the tower.

    A tower is described by its fields, or its variant, and by
        hidden: which hidden state conditions the network: -1 the last, normalised; -2 the one
            before it.
        pad: the token that fills a caption up.
    Raises ValueError for an unknown variant.
    """
    towers = make_towers(config)

    def apply(params, frozen, text, keys=None):
        text = {name: jnp.asarray(text[name]) for name in text if name in TEXT_ARRAYS}
        mask = text["mask"]
        count, total = mask.shape
        length = min(config.length, total)
        chunks = {name: x.reshape(-1, length) for name, x in text.items()}
        sequence, pooled = encode_towers(towers, with_learned(frozen, params), **chunks)
        known = mask.any(axis=1)
        sequence = sequence.reshape(count, total, -1) * known[:, None, None]
        first = pooled[-1].reshape(count, total // length, -1)[:, 0]
        return TextCondition(sequence, first * known[:, None], mask)

    def init(rng, length):
        width, pooled = widths_of(towers)
        zeros = jnp.zeros((1, length, width)), jnp.zeros((1, pooled[-1]))
        params = {
            name: {"learned": jnp.zeros((config.vectors, tower.width))}
            for name, (tower, _, _) in towers.items()
            if config.get("learn")
        }
        return params, TextCondition(*zeros, jnp.ones((1, length), bool))

    return TextEncoder(init, apply, no_tokenizer, chunks=MOST_CHUNKS)


Tower = tuple[TextTower, int, int]
TEXT_ARRAYS = ("tokens", "mask", "weight")


def encode_towers(
    towers: Mapping[str, Tower],
    frozen: Any,
    tokens: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
    weight: Float[Array, "B L"] | None = None,
) -> tuple[Float[Array, "B L D"], list[Float[Array, "B E"]]]:
    """Return (the hidden states of all towers, channel by channel; the pooled vector of each).

    towers: those of `make_tower` by name.
    frozen: {name: the parameters of the tower}.
    weight: by which the vector of each token is multiplied. All vectors of a text are then
        multiplied by one number, so that their mean stays what it was, tower by tower.
    """
    sequences, pooled = [], []
    for name, (tower, hidden, pad) in towers.items():
        padded = jnp.where(mask, tokens, pad)
        states, vector = tower.apply({"params": frozen[name]}, padded)
        sequence = states[hidden].astype(jnp.float32)
        if weight is not None:
            weighted = sequence * weight[..., None]
            sequence = weighted * (_mean(sequence) / _mean(weighted))
        sequences.append(sequence)
        pooled.append(jnp.asarray(vector, jnp.float32))
    return jnp.concatenate(sequences, axis=-1), pooled


def with_learned(frozen: Mapping, params: Mapping) -> dict[str, Any]:
    """Return the towers' parameters, with what was learned added to the last rows of tokens.

    params: {tower: {"learned": [vectors, D]}}, or {} if nothing was.
    """
    towers = {**frozen}
    for name, own in params.items():
        table, rows = jnp.asarray(frozen[name]["embed"]["embedding"]), own["learned"]
        table = table.at[-len(rows) :].add(rows.astype(table.dtype))
        towers[name] = {**frozen[name], "embed": {"embedding": table}}
    return towers


def _mean(x):
    return x.mean(axis=(1, 2), keepdims=True)


def widths_of(towers: Mapping[str, Tower]) -> tuple[int, list[int]]:
    """Return the channels of both results of `encode_towers`."""
    nets = [tower for tower, _, _ in towers.values()]
    return sum(net.width for net in nets), [net.projection or net.width for net in nets]


def no_tokenizer(captions):
    """Refuse to make a tokenizer: this is `TextEncoder.make_tokenizer`."""
    raise ValueError(
        "this text.encoder is used with published weights alone: convert them to a run "
        "(main.py convert --from=PATH --workdir=RUN), and start from it with init_from=RUN"
    )


def make_towers(config) -> dict[str, Tower]:
    """Return the towers of `config.towers`, in order, by name. config: `config.text`."""
    more = config.vectors if config.get("learn") else 0
    towers = {name: make_tower(about) for name, about in config.towers.items()}
    return {
        name: (tower.clone(vocab_size=tower.vocab_size + more), hidden, pad)
        for name, (tower, hidden, pad) in towers.items()
    }


def make_tower(config: Mapping[str, Any]) -> Tower:
    """Return (the network, its hidden state, its padding token) of one of `config.towers`."""
    own = fields_of(config, TEXT_VARIANTS)
    hidden, pad = own.pop("hidden", FINAL), own.pop("pad", 0)
    if "dtype" in own:
        own["dtype"] = jnp.dtype(own["dtype"])  # a string in configs
    return TextTower(**own), hidden, pad
