"""Autoregression from coarse to fine: each step draws a whole grid of image tokens, the next finer one (VAR, arXiv 2404.02905).

The tokens are those of a first stage whose quantizer has `scales` (models/scales.py).
"""

import jax
import jax.numpy as jnp
import optax

from t2i_jax.decoding.autoregressive import choose
from t2i_jax.families.family import Context, Family, Variables, fold_in_each, over, split_keys
from t2i_jax.first_stage import codes_abilities, codes_of, make_codes, precomputed
from t2i_jax.models.next_scale import NextScale, spans
from t2i_jax.ranker import ranked
from t2i_jax.text.condition import drop_captions, make_encoder, null_like, pretrained_texts

SAMPLE = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 1}


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_codes`, text.*, model.* (of NextScale), caption_dropout and sample.* (over SAMPLE), ranker.

    Raises ValueError for a first stage without scales, and for an unknown field.
    """
    del axis_name  # nothing here goes across examples
    stage, encoder, name = make_codes(config, scales=True), make_encoder(config.text), config.text.encoder
    network, places = NextScale(stage.size, stage.scales, **config.model), sum(side**2 for side in stage.scales)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        text_params, condition = encoder.init(rng_text, batch["text"][name]["tokens"].shape[1])
        coarse, codebook = jnp.zeros((1, places, stage.channels)), jnp.zeros((stage.size, stage.channels))
        return {"model": {"text": text_params, "net": network.init(rng_net, condition, coarse, codebook)["params"]}}, {}

    def encode_text(params, frozen, text, keys=None):
        return encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def logits_of(params, frozen, condition, codes, keys=None):
        coarse, codebook = stage.coarse(frozen["first_stage"], codes), stage.vectors(frozen["first_stage"])
        return network.apply({"params": params["model"]["net"]}, condition, coarse, codebook, keys)

    def loss(params, ctx: Context):
        """Cross-entropy in nats a token, a mean over the tokens of all grids."""
        text, keys = ctx.batch["text"][name], None
        if ctx.train:
            drop_keys, keys = split_keys(ctx.keys, 2)
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
        codes = codes_of(stage, ctx)
        logits = logits_of(params, ctx.frozen, encode_text(params, ctx.frozen, text, keys), codes, keys)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean(-1)
        right = jnp.take_along_axis(logits, codes[..., None], -1)[..., 0] == logits.max(-1)
        return cross_entropy, (ctx.extra, {"token_accuracy": right.mean(-1)})

    def sample(variables: Variables, inputs, keys, *, guidance, **settings):
        """Pictures uint8 [B, H, W, 3]: as many calls of the network as there are grids. Guided logits as in autoregressive.py.

        settings: those of decoding.autoregressive.choose.
        """
        text, frozen = inputs["text"][name], variables.frozen
        null = null_like(text, frozen["null_text"][name])
        both = encode_text(variables.params, frozen, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null))
        codes = jnp.zeros((len(keys), places), jnp.int32)
        for i, (_, first, last) in enumerate(spans(stage.scales)):
            cond, uncond = jnp.split(logits_of(variables.params, frozen, both, jnp.concatenate([codes, codes])), 2)
            logits = (cond + (guidance - 1.0) * (cond - uncond))[:, first:last]
            codes = codes.at[:, first:last].set(choose(fold_in_each(keys, i), logits, **settings))
        return stage.decode(frozen["first_stage"], codes)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"sample": ranked(sample, config), **codes_abilities(stage)},
        settings={"sample": over(SAMPLE, config.get("sample", {}), "sample")},
        make_frozen=lambda source: {"first_stage": stage.fit(source)},
        static=("candidates",),
        pretrained=pretrained_texts(encoder),
        precompute=precomputed(stage, "codes"),
    )
