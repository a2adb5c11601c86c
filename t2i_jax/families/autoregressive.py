"""Autoregressive text-to-image: a transformer that continues the caption with image tokens (arXiv 2102.12092, 2206.10789).

The image tokens are the codes of a first stage (first_stage.py). With `captioning` the same transformer also continues image
tokens with captions, so that one model draws and captions.
"""

import jax
import jax.numpy as jnp
import optax

from t2i_jax import ranker
from t2i_jax.decoding.autoregressive import generate
from t2i_jax.families.captioner import CAPTION, make_decoder, of_codes, word_loss, write
from t2i_jax.families.family import Context, Family, Variables, over, split_keys
from t2i_jax.first_stage import codes_abilities, codes_of, make_codes, precomputed
from t2i_jax.models.transformer import PrefixDecoder
from t2i_jax.text.condition import drop_captions, make_encoder, null_like, pretrained_texts

SAMPLE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 1.0, "candidates": 1}


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_codes`, text.*, model.* (of PrefixDecoder), caption_dropout, sample.* (over SAMPLE), ranker,
    captioning (weight of the loss of captions; none by default) and, with it, caption.* (over captioner.CAPTION).

    Raises ValueError for an unknown field of sample or caption, and for fewer than one candidate.
    """
    del axis_name  # nothing here goes across examples
    stage, captioning = make_codes(config), config.get("captioning", 0.0)
    encoder = make_encoder(config.text)
    decoder = PrefixDecoder(codes=stage.size, grid=stage.grid, **config.model)
    name = config.text.encoder
    sight = of_codes(stage)
    words = make_decoder(config, sight) if captioning else None
    rank, defaults = ranker.make(config), over(SAMPLE, config.get("sample", {}), "sample")
    ranker.check(defaults["candidates"], ranked=True)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        length = batch["text"][name]["tokens"].shape[1]
        text_params, condition = encoder.init(rng_text, length)
        codes = jnp.zeros((1, decoder.length), jnp.int32)
        net_params = decoder.init(rng_net, condition, codes, jnp.zeros((stage.size, stage.channels)))["params"]
        params = {"text": text_params, "net": net_params}
        if captioning:
            seen, tokens = jnp.zeros((1, decoder.length, stage.channels)), jnp.zeros((1, length), jnp.int32)
            own = words.init(jax.random.fold_in(rng, 2), seen, tokens)["params"]
            params["words"] = {part: own[part] for part in own if part != "trunk"}
        return {"model": params}, {}

    def words_params(params):
        """Those of the decoder of captions, whose transformer is that which draws."""
        return {**params["model"]["words"], "trunk": params["model"]["net"]["trunk"]}

    def encode_text(params, frozen, text, keys=None):
        return encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def loss(params, ctx: Context):
        """Cross-entropy in nats an image token, and that of a caption's tokens with its weight."""
        said, keys = ctx.batch["text"][name], None
        text = said
        if ctx.train:
            drop_keys, keys = split_keys(ctx.keys, 2)
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
        codebook, codes = stage.vectors(ctx.frozen["first_stage"]), codes_of(stage, ctx)
        condition = encode_text(params, ctx.frozen, text, keys)
        logits = decoder.apply({"params": params["model"]["net"]}, condition, codes, codebook, keys)
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean(-1)
        right = jnp.take_along_axis(logits, codes[..., None], -1)[..., 0] == logits.max(-1)
        metrics = {"token_accuracy": right.mean(-1)}
        if captioning:
            seen = sight.see(ctx.frozen, codes)
            logits = words.apply({"params": words_params(params)}, seen, said["tokens"], keys)
            metrics["caption_loss"], metrics["word_accuracy"] = word_loss(logits, said["tokens"], said["mask"])
            cross_entropy = cross_entropy + captioning * metrics["caption_loss"]
        return cross_entropy, (ctx.extra, metrics)

    def sample(variables: Variables, inputs, keys, *, candidates, guidance, **settings):
        """Pictures uint8 [B, H, W, 3]. Guided logits are cond + (guidance - 1) * (cond - uncond).

        Of several candidates for a picture, the one that is likeliest given the caption is kept, as the model itself has it:
        log p(codes | caption), to which a ranker adds log p(caption | picture).   settings: those of
        decoding.autoregressive.generate.
        """
        params, net = variables.params, {"params": variables.params["model"]["net"]}
        codebook = stage.vectors(variables.frozen["first_stage"])
        text = inputs["text"][name]
        null = null_like(text, variables.frozen["null_text"][name])
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null)
        condition = encode_text(params, variables.frozen, both)
        caption_carry = decoder.apply(net, condition, codebook, method="prefill")

        def logits_of(carry, codes, i):
            twice = jnp.concatenate([codes, codes])
            logits, carry = decoder.apply(net, both["mask"], carry, twice, i, method="decode_step")
            cond, uncond = jnp.split(logits, 2)
            return cond + (guidance - 1.0) * (cond - uncond), carry

        def draw(keys):
            return generate(logits_of, caption_carry, decoder.length, keys, **settings)

        def fit(codes):
            """[B] nats."""
            cond = jax.tree.map(lambda x: x[: len(codes)], condition)
            logits = decoder.apply(net, cond, codes, codebook)
            found = -optax.softmax_cross_entropy_with_integer_labels(logits, codes).sum(-1)
            return found + (rank(variables.frozen, show(codes), text) if rank else 0.0)

        def show(codes):
            return stage.decode(variables.frozen["first_stage"], codes)

        return show(ranker.best(draw, fit, keys, candidates))

    def caption(variables: Variables, inputs, keys, **settings):
        """As the ability of families/captioner.py."""
        seen = sight.see(variables.frozen, stage.encode(variables.frozen["first_stage"], inputs["image"]))
        return write(words, words_params(variables.params), seen, keys, **settings)

    abilities, settings = {"sample": sample, **codes_abilities(stage)}, {"sample": defaults}
    if captioning:
        abilities["caption"], settings["caption"] = caption, over(CAPTION, config.get("caption", {}), "caption")
    return Family(
        init=init,
        losses={"model": loss},
        abilities=abilities,
        settings=settings,
        static=("candidates", "beams") if captioning else ("candidates",),
        make_frozen=lambda source: {"first_stage": stage.fit(source)},
        pretrained=pretrained_texts(encoder),
        precompute=precomputed(stage, "codes"),
    )
