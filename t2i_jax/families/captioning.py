"""Captioning pictures: how a network takes a picture, and how it writes a caption for it.

A picture is given to the network as vectors on a grid: those of the codes of a first stage
(first_stage.py), or a feature map of EfficientNet-Lite0. Used by families/captioner.py, and by
families/autoregressive.py for models that both draw and caption.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from t2i_jax.core.family import Encoding
from t2i_jax.core.fields import Field
from t2i_jax.core.first_stage import Codes
from t2i_jax.core.types import AnyArray
from t2i_jax.decoding.autoregressive import generate
from t2i_jax.decoding.beam import beam_search, stop_at_end
from t2i_jax.families.first_stage import encoding, load_codes, make_frozen
from t2i_jax.families.token_loss import cross_entropy, mean_where
from t2i_jax.features import efficientnet_lite0
from t2i_jax.models.attention import layer_norm
from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.models.word_decoder import WordDecoder
from t2i_jax.text.tokenizer import END, PAD

SOURCES = ("codes", "features")
CAPTION_FIELDS = {
    "beams": Field(1, "beams of a search for the likeliest caption; 1 for no search", 1, 256),
    "temperature": Field(0.0, "of drawing words, if beams is 1; 0 takes the likeliest word", 0.0),
    "top_p": Field(1.0, "probability of the likeliest words from which one is drawn", 0.001, 1.0),
    "length_penalty": Field(0.6, "exponent of a search's length penalty; more favours length", 0.0),
}


def check_caption_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` of CAPTION_FIELDS. Raises ValueError for those that exclude each other."""
    beams, temperature = settings.get("beams", 1), settings.get("temperature", 0.0)
    if beams > 1 and temperature > 0:
        raise ValueError(
            f"beams is {beams} and temperature {temperature}: a search for the likeliest draws "
            "nothing at random; let temperature be 0, or beams 1"
        )
    return settings


class PictureView(NamedTuple):
    """How a picture is given to a network that writes: `channels` numbers in each cell of a grid.

    grid: (rows, columns).
    encoding: as `Family.encoding`; it computes {name: encoded} with one name.
    vectors: (frozen, encoded) -> float [B, rows * columns, channels].
    make_frozen: as `Family.make_frozen`.
    """

    grid: tuple[int, int]
    channels: int
    encoding: Encoding
    vectors: Callable
    make_frozen: Callable


def make_view(config, source: str, feature_map: int) -> PictureView:
    """Return how pictures are given to the network.

    source: "codes", of the first stage of `config`, or "features", of EfficientNet-Lite0.
    feature_map: which of its maps, for "features".
    Raises ValueError for another source, and as `load_codes` and `view_of_features` do.
    """
    if source not in SOURCES:
        raise ValueError(f"captioner.source = {source!r}: it can be {' or '.join(SOURCES)}")
    if source == "codes":
        return view_of_codes(load_codes(config), config)
    return view_of_features(config, feature_map)


def view_of_codes(stage: Codes, config) -> PictureView:
    """Return the view of a picture as the vectors of its codes, standardised."""

    def vectors(frozen, codes):
        codebook = stage.vectors(frozen["first_stage"])
        return ((codebook - codebook.mean(0)) / (codebook.std() + 1e-6))[codes]

    return PictureView(
        grid=stage.grid,
        channels=stage.channels,
        encoding=encoding(stage, "codes", config),
        vectors=vectors,
        make_frozen=make_frozen(stage),
    )


def view_of_features(config, chosen: int) -> PictureView:
    """Return the view of a picture as map `chosen` of EfficientNet-Lite0; 0 is the finest map.

    Raises ValueError, listing the maps, if there is no such map.
    """
    image = jnp.zeros((1, config.data.resolution, config.data.resolution, 3), jnp.uint8)

    def maps(weights, image):
        return efficientnet_lite0.apply(weights, image)["maps"]

    weights = jax.eval_shape(EfficientNetLite().init, jax.random.key(0), image.astype(jnp.float32))
    shapes = [x.shape[1:] for x in jax.eval_shape(maps, weights, image)]
    if not 0 <= chosen < len(shapes):
        listed = ", ".join(
            f"{i}: {rows} x {columns}" for i, (rows, columns, _) in enumerate(shapes)
        )
        raise ValueError(f"captioner.map is {chosen}; the maps are {listed}")
    rows, columns, channels = shapes[chosen]

    def compute(frozen, image):
        x = maps(frozen["extractor"], image)[chosen]
        return {"features": x.reshape(len(x), rows * columns, channels).astype(jnp.float16)}

    return PictureView(
        grid=(rows, columns),
        channels=channels,
        encoding=Encoding(compute, ("extractor",), ["EfficientNet-Lite0", 1, chosen]),
        vectors=lambda frozen, features: layer_norm(features),
        make_frozen=lambda source, read_run: {"extractor": efficientnet_lite0.make().weights},
    )


def make_word_decoder(config, view: PictureView, model: Mapping) -> WordDecoder:
    """Return the network that writes captions of pictures given as `view`.

    It writes in the tokens of `config.text`, of which it takes `length` and `vocab_size` too.
    model: the other fields of `WordDecoder`.
    Raises ValueError for a text encoder that has other tokens than those of "transformer".
    """
    if config.text.encoder != "transformer":
        raise ValueError(
            f"text.encoder is {config.text.encoder!r}: captions are written in the tokens of "
            "'transformer'"
        )
    remat = config.parallel.remat
    return WordDecoder(config.text.vocab_size, config.text.length, view.grid, remat=remat, **model)


def word_loss(
    logits: Float[AnyArray, "B L V"],
    tokens: Int[AnyArray, "B L"],
    mask: Bool[AnyArray, "B L"],
    smoothing: float = 0.0,
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Return (cross-entropy in nats, accuracy), each a mean over the tokens of a caption.

    mask: True for the tokens that count.
    smoothing: how much of the target is spread evenly over all V (arXiv 1512.00567, section 7).
    """
    nats, likeliest = cross_entropy(logits, tokens)
    uniform = jax.nn.logsumexp(logits, -1) - logits.mean(-1)
    smoothed = (1.0 - smoothing) * nats + smoothing * uniform
    return mean_where(mask, smoothed), mean_where(mask, likeliest)


def write_captions(
    decoder: WordDecoder,
    params,
    vectors: Float[Array, "B N D"],
    keys: Key[Array, "B"] | None,
    *,
    beams: int,
    temperature,
    top_p,
    length_penalty,
) -> Int[Array, "B L"]:
    """Write a caption for each picture: tokens that end with END and are PAD after it.

    vectors: of the pictures, as `PictureView.vectors` gives them.
    keys: may be None with several beams.
    beams: with more than 1, search for the likeliest captions, with `length_penalty` and without
        chance. With 1, take the likeliest word at each place or, where `temperature` is more than
        0, draw one from the nucleus `top_p`.
    """

    def logits_of(caches, tokens, i):
        return decoder.apply({"params": params}, caches, tokens, i, method="decode_step")

    caches = decoder.apply({"params": params}, vectors, method="prefill")
    step = stop_at_end(logits_of, END, PAD)
    if beams > 1:
        return beam_search(step, caches, decoder.length, beams, length_penalty, PAD)[0][:, 0]
    if keys is None:
        raise ValueError("writing captions without a search needs keys")
    return generate(step, caches, decoder.length, keys, temperature, 0, top_p)
