"""CLIP's and T5's text encoders as they condition Stable Diffusion 3 and FLUX.1. Never trained.

Stable Diffusion 3 also draws without T5, which is by far the largest part of it: zeros stand in the
place of its vectors (arXiv 2403.03206, section 5.3.3).

Sources: arXiv 2403.03206, section 4; github.com/black-forest-labs/flux. The weights and the two
tokenizers are those of a published model (convert/diffusers_flow.py). A run folder holds them.
"""

import jax.numpy as jnp

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.models.t5 import VARIANTS, T5Encoder
from t2i_jax.models.variants import fields_of
from t2i_jax.text import clip
from t2i_jax.text.encoder import LENGTH

T5 = "t5"  # the name of its parameters, beside those of the towers


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for clip_t5."""
    meaning = "which vectors the network attends to: CLIP's, then T5's; or T5's alone"
    of_clip = clip.fields(config)
    return {
        "towers": of_clip["towers"],
        "length": LENGTH._replace(meaning="tokens of CLIP and of T5 together"),
        "t5": Field({"variant": "v1.1-XXL"}, "fields of T5Encoder, or a variant"),
        "sequence": Field("both", meaning, choices=("both", "t5")),
        "zeros": Field(0, "zero vectors in place of T5's, without T5; 0 with T5", 0, 2**16),
    }


def make(config) -> TextEncoder:
    """Return the encoder of `config.towers` and `config.t5`.

    A text has the tokens of CLIP, as many as its towers have positions, and then those of T5. CLIP
    fills captions up as a tower's `pad` says, T5 attends to its padding. The pooled vectors of all
    towers stand side by side. In the sequence of "both", CLIP's vectors have zeros up to T5's
    width. Without T5 (`zeros`), a text has no tokens of it, and of `t5` only the width is used.

    Raises ValueError for an unknown variant.
    """
    towers = clip.make_towers(config)
    t5, both = make_t5(config.t5), config.get("sequence", "both") == "both"
    zeros = config.get("zeros", 0)
    of_clip = min(tower.length for tower, _, _ in towers.values())

    def apply(params, frozen, text, keys=None):
        tokens, mask = jnp.asarray(text["tokens"]), jnp.asarray(text["mask"])
        first, pooled = clip.encode_towers(towers, frozen, tokens[:, :of_clip], mask[:, :of_clip])
        pooled = jnp.concatenate(pooled, axis=-1)
        if zeros:
            second = jnp.zeros((len(first), zeros, t5.width))
            mask = jnp.concatenate([mask, jnp.ones((len(first), zeros), bool)], axis=1)
        else:
            second = jnp.asarray(t5.apply({"params": frozen[T5]}, tokens[:, of_clip:]), jnp.float32)
        if not both:
            return TextCondition(second, pooled, mask[:, of_clip:])
        filled = ((0, 0), (0, 0), (0, second.shape[-1] - first.shape[-1]))
        sequence = jnp.concatenate([jnp.pad(first, filled), second], axis=1)
        return TextCondition(sequence, pooled, mask)

    def init(rng, length):
        _, pooled = clip.widths_of(towers)
        kept = length + zeros if both else length - of_clip
        like = jnp.zeros((1, kept, t5.width)), jnp.zeros((1, sum(pooled)))
        return {}, TextCondition(*like, jnp.ones((1, kept), bool))

    return TextEncoder(init, apply, clip.no_tokenizer)


def make_t5(config) -> T5Encoder:
    """Return the network of `config.t5`."""
    own = fields_of(config, VARIANTS)
    if "dtype" in own:
        own["dtype"] = jnp.dtype(own["dtype"])  # a string in configs
    return T5Encoder(**own)
