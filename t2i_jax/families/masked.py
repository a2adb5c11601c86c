"""Masked image transformer: image tokens drawn many at once, in a few steps (MaskGIT, arXiv 2202.04200; Muse, 2301.00704).

The image tokens are the codes of a first stage (first_stage.py).
"""

import jax
import jax.numpy as jnp
import optax

from t2i_jax.by_name import hint
from t2i_jax.decoding import parallel
from t2i_jax.families.family import Context, Family, Variables, over, split_keys
from t2i_jax.first_stage import codes_abilities, codes_of, make_codes, precomputed
from t2i_jax.models.masked_transformer import MaskedTransformer
from t2i_jax.ranker import ranked
from t2i_jax.text.condition import drop_captions, make_encoder, null_like, pretrained_texts, text_or_null

SAMPLE = {
    "steps": 8,
    "order": "confidence",  # of ORDERS
    "schedule": "cosine",  # this and choice_temperature: of confidence
    "choice_temperature": 1.0,
    "sure": 0.1,  # nats, of surprise
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "guidance": 1.5,
    "candidates": 1,
}


ORDERS = {  # (`counts`, settings) -> `keep` of `parallel.decode`
    "confidence": lambda remaining, s: parallel.by_confidence(remaining, s["choice_temperature"]),
    "surprise": lambda remaining, s: parallel.by_surprise(s["sure"], s["temperature"]),
}


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_codes`, text.*, model.* (of MaskedTransformer), mask_schedule (of training), caption_dropout
    and sample.* (over SAMPLE), ranker.

    Raises ValueError for an unknown schedule or field of these, and for more steps than a picture has tokens.
    """
    del axis_name  # nothing here goes across examples
    stage, encoder, name = make_codes(config), make_encoder(config.text), config.text.encoder
    network = MaskedTransformer(codes=stage.size, grid=stage.grid, **config.model)
    gamma = parallel.mask_schedule(config.mask_schedule)
    defaults = over(SAMPLE, config.get("sample", {}), "sample")
    make_keep(network.length, defaults)  # wrong ones are found here

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        length = batch["text"][name]["tokens"].shape[1]
        text_params, condition = encoder.init(rng_text, length)
        codes, codebook = jnp.zeros((1, network.length), jnp.int32), jnp.zeros((stage.size, stage.channels))
        net_params = network.init(rng_net, condition, codes, codes > 0, codebook)["params"]
        return {"model": {"text": text_params, "net": net_params}}, {}

    def encode_text(params, frozen, text, keys=None):
        return encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def loss(params, ctx: Context):
        """`masked_cross_entropy` of a `random_mask` an example."""
        text, (mask_keys, drop_keys, keys) = ctx.batch["text"][name], split_keys(ctx.keys, 3)
        if ctx.train:
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
        else:
            keys = None
        codebook, codes = stage.vectors(ctx.frozen["first_stage"]), codes_of(stage, ctx)
        masked = jax.vmap(lambda key: random_mask(key, gamma, network.length))(mask_keys)
        condition = encode_text(params, ctx.frozen, text, keys)
        logits = network.apply({"params": params["model"]["net"]}, condition, codes, masked, codebook, keys)
        right = jnp.take_along_axis(logits, codes[..., None], -1)[..., 0] == logits.max(-1)
        return masked_cross_entropy(logits, codes, masked), (ctx.extra, {"token_accuracy": mean_of_masked(right, masked)})

    def draw(variables: Variables, text, codes, masked, count, keys, settings):
        """Codes int32 [B, N], of which the `count` (an int or [B]) that are masked are drawn.

        Guided logits are cond + (guidance - 1) * (cond - uncond). Raises ValueError as `make_keep` does.
        """
        params, net = variables.params, {"params": variables.params["model"]["net"]}
        codebook = stage.vectors(variables.frozen["first_stage"])
        null = null_like(text, variables.frozen["null_text"][name])
        both = encode_text(params, variables.frozen, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null))

        def tokens_to_logits(codes, masked):
            codes, masked = (jnp.concatenate([x, x]) for x in (codes, masked))
            cond, uncond = jnp.split(network.apply(net, both, codes, masked, codebook), 2)
            return cond + (settings["guidance"] - 1.0) * (cond - uncond)

        choice = {name: settings[name] for name in ("steps", "temperature", "top_k", "top_p")}
        return parallel.decode(tokens_to_logits, codes, masked, keys, make_keep(count, settings), **choice)

    def sample(variables: Variables, inputs, keys, **settings):
        """Pictures uint8 [B, H, W, 3]; settings of SAMPLE."""
        codes = jnp.zeros((len(keys), network.length), jnp.int32)
        codes = draw(variables, inputs["text"][name], codes, codes == 0, network.length, keys, settings)
        return stage.decode(variables.frozen["first_stage"], codes)

    def inpaint(variables: Variables, inputs, keys, **settings):
        """Pictures uint8 [B, H, W, 3] whose pixels outside "mask" bool [B, H, W] are those of "image"; settings of SAMPLE.

        Tokens whose cell has a pixel of the mask are drawn anew, given the others and "text" (none: the empty caption). A
        mask that leaves the middle is outpainting. Raises ValueError for pictures of another size than data.resolution, and
        for a mask of another shape than the pictures.
        """
        image, mask, side = inputs["image"], inputs["mask"], config.data.resolution
        if image.shape[1:3] != (side, side):
            raise ValueError(f"pictures of {image.shape[1]} x {image.shape[2]} pixels: this model needs {side} x {side}")
        if mask.shape != image.shape[:3]:
            raise ValueError(f"a mask of shape {mask.shape} does not fit pictures of shape {image.shape}: let it be [B, H, W]")
        frozen, text = variables.frozen, text_or_null(inputs, variables.frozen, name, len(image))
        codes, masked = stage.encode(frozen["first_stage"], image), touched(mask, stage.grid)
        codes = draw(variables, text, codes, masked, masked.sum(-1), keys, settings)
        return jnp.where(mask[..., None], stage.decode(frozen["first_stage"], codes), image)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"sample": ranked(sample, config), "inpaint": inpaint, **codes_abilities(stage)},
        settings={"sample": defaults, "inpaint": {k: v for k, v in defaults.items() if k != "candidates"}},
        static=("steps", "order", "schedule", "candidates"),
        make_frozen=lambda source: {"first_stage": stage.fit(source)},
        pretrained=pretrained_texts(encoder),
        precompute=precomputed(stage, "codes"),
    )


def make_keep(count, settings):
    """`keep` of `parallel.decode` for `count` (an int or [B]) masked tokens and settings of SAMPLE.

    Raises ValueError for an unknown order or schedule, and for more steps than tokens, of an int.
    """
    remaining = parallel.counts(parallel.mask_schedule(settings["schedule"]), count, settings["steps"])
    order = settings["order"]
    if order not in ORDERS:
        raise ValueError(f"there is no order {order!r}: there are {', '.join(ORDERS)}{hint(order, ORDERS)}")
    return ORDERS[order](remaining, settings)


def mean_of_masked(x, masked):
    """The mean [B] of x [B, N] where `masked` bool [B, N] is True."""
    return jnp.where(masked, x, 0).sum(-1) / masked.sum(-1)


def masked_cross_entropy(logits, codes, masked):
    """Nats a masked token [B] of logits [B, N, V] for codes int [B, N] (arXiv 2202.04200); other tokens do not count.

    Each picture counts alike, however many of its tokens are masked; eq. 1 sums over them.
    """
    return mean_of_masked(optax.softmax_cross_entropy_with_integer_labels(logits, codes), masked)


def random_mask(key, gamma, length: int):
    """bool [length] with `masked_count` True at random places, at least 1, of gamma at a uniform progress."""
    progress_key, place_key = jax.random.split(key)
    count = parallel.masked_count(gamma, jax.random.uniform(progress_key), length)
    rank = jnp.argsort(jnp.argsort(jax.random.uniform(place_key, (length,))))
    return rank < jnp.maximum(count, 1)


def touched(mask, grid: tuple[int, int]):
    """bool [B, rows * columns]: the cells of a grid in which mask, bool [B, H, W], has a True."""
    (batch, height, width), (rows, columns) = mask.shape, grid
    cells = mask.reshape(batch, rows, height // rows, columns, width // columns)
    return cells.any((2, 4)).reshape(batch, -1)
