"""Autoregressive text-to-image: a transformer that continues the caption with image tokens (arXiv 2102.12092, 2206.10789).

The image tokens are those of a patch codebook fitted to the training pictures (models/patch_codebook.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from t2i_jax.decoding.autoregressive import generate
from t2i_jax.families.family import Context, Family, Variables, split_keys
from t2i_jax.models import patch_codebook
from t2i_jax.models.layers import from_unit, to_unit
from t2i_jax.models.transformer import PrefixDecoder
from t2i_jax.text.condition import drop_captions, make_encoder, null_like, pretrained_texts


def make(config, axis_name=None) -> Family:
    """Fields used: data.resolution, text.*, model.* (of PrefixDecoder), image_tokenizer.*, caption_dropout, sample.*."""
    del axis_name  # nothing here goes across examples
    tokenizer = config.image_tokenizer
    resolution, patch = config.data.resolution, tokenizer.patch
    if resolution % patch:
        raise ValueError(f"data.resolution {resolution} is not a multiple of image_tokenizer.patch {patch}")
    grid = (resolution // patch, resolution // patch)
    encoder = make_encoder(config.text)
    decoder = PrefixDecoder(codes=tokenizer.codes, grid=grid, **config.model)
    name = config.text.encoder

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        length = batch["text"][name]["tokens"].shape[1]
        text_params, condition = encoder.init(rng_text, length)
        codes, codebook = jnp.zeros((1, decoder.length), jnp.int32), jnp.zeros((tokenizer.codes, 3 * patch**2))
        net_params = decoder.init(rng_net, condition, codes, codebook)["params"]
        return {"model": {"text": text_params, "net": net_params}}, {}

    def encode_text(params, frozen, text, keys=None):
        return encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def loss(params, ctx: Context):
        """Cross-entropy in nats a token."""
        text, keys = ctx.batch["text"][name], None
        if ctx.train:
            drop_keys, keys = split_keys(ctx.keys, 2)
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
        codebook = ctx.frozen["codebook"]
        codes = patch_codebook.encode(codebook, to_unit(ctx.batch["image"]))
        condition = encode_text(params, ctx.frozen, text, keys)
        logits = decoder.apply({"params": params["model"]["net"]}, condition, codes, codebook, keys)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean(-1)
        right = jnp.take_along_axis(logits, codes[..., None], -1)[..., 0] == logits.max(-1)
        return cross_entropy, (ctx.extra, {"token_accuracy": right.mean(-1)})

    def sample(variables: Variables, inputs, keys, *, temperature, top_k, top_p, guidance):
        """Pictures uint8 [B, H, W, 3]. Guided logits are cond + (guidance - 1) * (cond - uncond)."""
        params, net = variables.params, {"params": variables.params["model"]["net"]}
        codebook = variables.frozen["codebook"]
        text = inputs["text"][name]
        null = null_like(text, variables.frozen["null_text"][name])
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null)
        carry = decoder.apply(net, encode_text(params, variables.frozen, both), codebook, method="prefill")

        def logits_of(carry, codes, i):
            twice = jnp.concatenate([codes, codes])
            logits, carry = decoder.apply(net, both["mask"], carry, twice, i, method="decode_step")
            cond, uncond = jnp.split(logits, 2)
            return cond + (guidance - 1.0) * (cond - uncond), carry

        codes = generate(logits_of, carry, decoder.length, keys, temperature, top_k, top_p)
        return from_unit(patch_codebook.decode(codebook, codes, grid))

    def encode(variables: Variables, inputs, rng=None):
        """Image tokens int32 [B, N] of uint8 pictures."""
        return patch_codebook.encode(variables.frozen["codebook"], to_unit(inputs["image"]))

    def decode(variables: Variables, inputs, rng=None):
        """Pictures uint8 [B, H, W, 3] of image tokens."""
        return from_unit(patch_codebook.decode(variables.frozen["codebook"], inputs["codes"], grid))

    def reconstruct(variables: Variables, inputs, rng=None):
        """The pictures as the image tokenizer sees them: the ceiling of what this model can draw."""
        return decode(variables, {"codes": encode(variables, inputs)})

    def make_frozen(source):
        count = min(len(source.captions), tokenizer.fit_pictures)
        chosen = np.random.default_rng(config.seed).choice(len(source.captions), count, replace=False)
        return {"codebook": patch_codebook.fit(source.read(np.sort(chosen)), patch, tokenizer.codes, config.seed)}

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"sample": sample, "encode": encode, "decode": decode, "reconstruct": reconstruct},
        settings={"sample": dict(config.sample)},
        make_frozen=make_frozen,
        pretrained=pretrained_texts(encoder),
    )
