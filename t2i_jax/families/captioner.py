"""Captioning: a transformer that continues what is seen in a picture with words (arXiv 1411.4555, 2108.10904).

What is seen are the codes of a first stage (first_stage.py), or a map of EfficientNet-Lite0; `config.captioner` says which.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from t2i_jax.decoding.autoregressive import generate
from t2i_jax.decoding.beam import ending, search
from t2i_jax.families.family import Context, Family, Variables, over
from t2i_jax.features import efficientnet_lite0
from t2i_jax.first_stage import Codes, make_codes, precomputed
from t2i_jax.models.attention import layer_norm
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.models.word_decoder import WordDecoder
from t2i_jax.text.tokenizer import END, PAD

CAPTIONER = {"source": "codes", "map": 4, "smoothing": 0.0}
SOURCES = ("codes", "features")
CAPTION = {"beams": 1, "temperature": 0.0, "top_p": 1.0, "length_penalty": 0.6}


class Sight(NamedTuple):
    """How a picture is seen: `channels` numbers at each place of a grid (rows, columns).

    compute: as `Family.precompute`; what it gives has the name of the source.
    see: (frozen, that) -> float [B, rows * columns, channels].   make_frozen: as that of the family.
    """

    grid: tuple[int, int]
    channels: int
    compute: Callable
    see: Callable
    make_frozen: Callable


def make(config, axis_name=None) -> Family:
    """Fields used: text.length and text.vocab_size, model.* (of WordDecoder), captioner.* (over CAPTIONER: the source of what
    is seen; under "features", which of EfficientNet-Lite0's five maps; and how much the targets of training are smoothed,
    arXiv 1512.00567, section 7), caption.* (over CAPTION: see `write`), and under "codes" those of `make_codes`.

    Raises ValueError for an unknown field or source, a map there is not, or a text.encoder other than "transformer", of
    which only the tokenizer is used.
    """
    del axis_name  # nothing here goes across examples
    settings, name = over(CAPTIONER, config.get("captioner", {}), "captioner"), config.text.encoder
    source, sight = settings["source"], make_sight(settings, config)
    decoder = make_decoder(config, sight)

    def init(rng, batch):
        tokens = jnp.zeros((1, decoder.length), jnp.int32)
        return {"model": {"net": decoder.init(rng, jnp.zeros((1, decoder.places, sight.channels)), tokens)["params"]}}, {}

    def seen(frozen, batch):
        found = batch if source in batch else sight.compute(frozen, batch["image"])
        return sight.see(frozen, found[source])

    def loss(params, ctx: Context):
        """Cross-entropy in nats a token."""
        text = ctx.batch["text"][name]
        keys, smoothing = (ctx.keys, settings["smoothing"]) if ctx.train else (None, 0.0)
        logits = decoder.apply({"params": params["model"]["net"]}, seen(ctx.frozen, ctx.batch), text["tokens"], keys)
        cross_entropy, right = word_loss(logits, text["tokens"], text["mask"], smoothing)
        return cross_entropy, (ctx.extra, {"token_accuracy": right})

    def caption(variables: Variables, inputs, keys, **settings):
        """Tokens int32 [B, length] of pictures {"image": uint8 [B, H, W, 3]}; settings of CAPTION."""
        return write(decoder, variables.params["model"]["net"], seen(variables.frozen, inputs), keys, **settings)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"caption": caption},
        settings={"caption": over(CAPTION, config.get("caption", {}), "caption"), "sample": {}},
        static=("beams",),
        make_frozen=sight.make_frozen,
        precompute=sight.compute,
    )


def make_score(config) -> Callable:
    """(variables, pictures uint8 [B, H, W, 3], text {"tokens", "mask"}) -> log p(caption | picture), [B] nats."""
    sight = make_sight(over(CAPTIONER, config.get("captioner", {}), "captioner"), config)
    decoder = make_decoder(config, sight)

    def score(variables: Variables, image, text):
        (found,) = sight.compute(variables.frozen, image).values()
        seen = sight.see(variables.frozen, found)
        logits = decoder.apply({"params": variables.params["model"]["net"]}, seen, text["tokens"])
        return -word_loss(logits, text["tokens"], text["mask"])[0] * text["mask"].sum(-1)  # a mean, so times the count

    return score


def make_sight(settings, config) -> Sight:
    """What the settings (of CAPTIONER) say; ValueError for a source there is not."""
    if settings["source"] not in SOURCES:
        raise ValueError(f"captioner.source = {settings['source']!r}: it can be {' or '.join(SOURCES)}")
    return of_codes(make_codes(config)) if settings["source"] == "codes" else of_features(config, settings["map"])


def make_decoder(config, sight: Sight) -> WordDecoder:
    """The network that writes of what is so seen, in the tokens of config.text; ValueError for an encoder with others."""
    if config.text.encoder != "transformer":
        raise ValueError(f"text.encoder is {config.text.encoder!r}: captions are written in the tokens of 'transformer'")
    return WordDecoder(config.text.vocab_size, config.text.length, sight.grid, **config.model)


def word_loss(logits, tokens, mask, smoothing=0.0):
    """(cross-entropy in nats, share of tokens that are the likeliest), each [B], a mean over the tokens of an example.

    logits: float [B, L, V] of tokens int [B, L], of which mask bool [B, L] is True.
    smoothing: how much of the target is spread over all V alike.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    alike = jax.nn.logsumexp(logits, -1) - logits.mean(-1)
    right = jnp.take_along_axis(logits, tokens[..., None], -1)[..., 0] == logits.max(-1)
    parts = ((1.0 - smoothing) * losses + smoothing * alike, right)
    return tuple(jnp.where(mask, x, 0).sum(-1) / mask.sum(-1) for x in parts)


def write(decoder: WordDecoder, params, seen, keys, *, beams, temperature, top_p, length_penalty):
    """Captions as tokens int32 [B, length] that end with END and are PAD after it, of what is seen, [B, N, D].

    beams: 1 writes the likeliest word at each place, or, where temperature is more than 0, draws one from the nucleus top_p;
    more beams are a search for the likeliest captions, with that length penalty and without chance.
    """

    def logits_of(caches, tokens, i):
        return decoder.apply({"params": params}, caches, tokens, i, method="decode_step")

    caches, step = decoder.apply({"params": params}, seen, method="prefill"), ending(logits_of, END, PAD)
    if beams > 1:
        return search(step, caches, decoder.length, beams, length_penalty, PAD)[0][:, 0]
    return generate(step, caches, decoder.length, keys, temperature, 0, top_p)


def of_codes(stage: Codes) -> Sight:
    """The codes of a first stage: what is seen are their vectors."""

    def see(frozen, codes):
        vectors = stage.vectors(frozen["first_stage"])
        return ((vectors - vectors.mean(0)) / (vectors.std() + 1e-6))[codes]

    return Sight(
        grid=stage.grid,
        channels=stage.channels,
        compute=precomputed(stage, "codes"),
        see=see,
        make_frozen=lambda source: {"first_stage": stage.fit(source)},
    )


def of_features(config, chosen: int) -> Sight:
    """One of EfficientNet-Lite0's maps, 0 the finest. ValueError, listing them, for one there is not."""
    image = jnp.zeros((1, config.data.resolution, config.data.resolution, 3), jnp.uint8)

    def maps(weights, image):
        return efficientnet_lite0.apply(weights, image)["maps"]

    weights = jax.eval_shape(EfficientNetLite().init, jax.random.key(0), image.astype(jnp.float32))
    shapes = [x.shape[1:] for x in jax.eval_shape(maps, weights, image)]
    if not 0 <= chosen < len(shapes):
        listed = ", ".join(f"{i}: {rows} x {columns}" for i, (rows, columns, _) in enumerate(shapes))
        raise ValueError(f"captioner.map is {chosen}; the maps are {listed}")
    rows, columns, channels = shapes[chosen]

    def compute(frozen, image):
        x = maps(frozen["extractor"], image)[chosen]
        return {"features": x.reshape(len(x), rows * columns, channels).astype(jnp.float16)}

    return Sight(
        grid=(rows, columns),
        channels=channels,
        compute=compute,
        see=lambda frozen, features: layer_norm(features),
        make_frozen=lambda source: {"extractor": efficientnet_lite0.make().weights},
    )
