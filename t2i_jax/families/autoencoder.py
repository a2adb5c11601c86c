"""The autoencoder of a first stage: an encoder, a quantizer and a decoder, built from a config.

families/vqgan.py trains it. Text does not condition it.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.core.family import Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import from_unit, to_unit
from t2i_jax.families.config_fields import network_fields
from t2i_jax.models import quantize, vqgan
from t2i_jax.models.layers import space_to_depth
from t2i_jax.models.scales import Scaled, over_scales
from t2i_jax.models.variants import fields_of

# "patches": the vector of a cell is its pixels, as they are. Its code then depends on no other
# cell, which a second model learns far sooner.
ENCODERS = ("convolutional", "patches")
NO_CODES = 'the quantizer "kl" has latents and no codes'
KIND_FIELD = Field("ema", "kind of quantizer", choices=tuple(quantize.KINDS))
SCALES_FIELD = Field((), "sides of the grids of multi-scale codes, coarse to fine; () for one", 1)
# The arguments of the functions of models/quantize.py. Where a default is None, the function has
# one itself.
QUANTIZER_FIELDS = {
    "size": Field(1024, "size of the codebook", 2, 2**20),
    "dim": Field(8, "channels of a vector", 1, 2**16),
    "levels": Field((8, 5, 5, 5), "number of levels of each channel", 2),
    "bits": Field(10, "bits of a code", 1, 20),
    "normalize": Field(None, "whether vectors and codes have length 1"),
    "commitment": Field(None, "weight of the distance of vectors from their codes", 0.0),
    "decay": Field(None, "decay of the running means that codes are", 0.0, 1.0),
    "dead": Field(None, "a code used less than this, relative to the mean, is replaced", 0.0),
    "entropy": Field(None, "weight of the entropy penalty", 0.0),
    "diversity": Field(None, "weight of the entropy of all codes in that penalty", 0.0),
    "temperature": Field(None, "temperature of the codes' probabilities in that penalty", 1e-6),
}


def autoencoder_fields(config) -> dict[str, dict[str, Field]]:
    """Return the sections "model" and "quantizer"."""
    kind = config.get("quantizer", {}).get("kind", KIND_FIELD.default)
    arguments = inspect.signature(quantize.load(kind)).parameters
    quantizer = {"kind": KIND_FIELD, "scales": SCALES_FIELD}
    for name, field in QUANTIZER_FIELDS.items():
        if name in arguments:
            default = arguments[name].default
            has_default = default is not inspect.Parameter.empty
            quantizer[name] = field._replace(default=default) if has_default else field
    encoder = Field(
        ENCODERS[0], 'the encoder; "patches": the pixels of a cell, as they are', choices=ENCODERS
    )
    networks = network_fields(
        vqgan.Encoder,
        choices={"resample": vqgan.RESAMPLE},
        variant=config.get("model", {}).get("variant", ""),
    )
    return {"model": {"encoder": encoder, **networks}, "quantizer": quantizer}


class Autoencoder(NamedTuple):
    """A config's networks and quantizer, as functions.

    `params` are those of the player "model"; `extra` is the quantizer's state. Pictures x are float
    [B, R, R, 3] in [-1, 1].

    size: of the codebook; 0 if there are no codes.
    shape: (rows, columns, channels) of latents and of vectors.
    init: (rng) -> (params, extra).
    quantize: (params, extra, x, keys [B]) -> models.quantize.Quantized, in training.
    latents: (params, x) -> float [B, *shape].
    codes: (params, extra, latents) -> int32 [B, N].
    vectors: (params, extra, codes [...]) -> float [..., channels].
    compose: (params, extra, codes [B, N]) -> vectors [B, *shape].
    draw: (params, vectors [B, *shape]) -> x.
    scales, coarse: see `core.first_stage.Codes`.
    """

    size: int
    shape: tuple[int, int, int]
    init: Callable
    quantize: Callable
    latents: Callable
    codes: Callable
    vectors: Callable
    compose: Callable
    draw: Callable
    scales: tuple[int, ...]
    coarse: Callable


def make_autoencoder(config, axis_name=None) -> Autoencoder:
    """Return the autoencoder of a config. Fields: data.resolution, model and quantizer.

    Raises ValueError for an unknown field, and for values that do not fit each other.
    """
    values, network = dict(config.quantizer), fields_of(config.model, vqgan.VARIANTS)
    encoder_kind = network.pop("encoder", ENCODERS[0])
    scales, resolution = tuple(values.pop("scales", ())), config.data.resolution
    plain = quantize.from_fields(values, axis_name)
    scaled = over_scales(plain, scales) if scales else None
    quantizer = scaled.quantizer if scaled else plain
    encoder, decoder = vqgan.Encoder(quantizer.channels, **network), vqgan.Decoder(**network)
    vqgan.check(encoder, resolution)
    factor = vqgan.factor(encoder)
    side = resolution // factor
    shape, patches = (side, side, quantizer.dim), encoder_kind == "patches"
    check_combination(encoder_kind, values, quantizer, scales, side, factor)

    def init(rng):
        rngs = jax.random.split(rng, 3)
        codebook, extra = quantizer.init(rngs[2])
        x = jnp.zeros((1, resolution, resolution, 3))
        networks = {} if patches else {"encoder": encoder.init(rngs[0], x)["params"]}
        networks["decoder"] = decoder.init(rngs[1], jnp.zeros((1, *shape)))["params"]
        return {**networks, "quantizer": codebook}, extra

    def of_quantizer(params):
        return params.get("quantizer", {})  # files keep no empty dicts

    def encode(params, x):
        if patches:
            return space_to_depth(x, factor)
        return encoder.apply({"params": params["encoder"]}, x)

    def quantized(params, extra, x, keys):
        return quantizer.apply(of_quantizer(params), extra, encode(params, x), keys)

    def codes(params, extra, z):
        if quantizer.encode is None:
            raise ValueError(NO_CODES)
        return quantizer.encode(of_quantizer(params), extra, z).reshape(len(z), -1)

    def vectors(params, extra, codes):
        if quantizer.lookup is None:
            raise ValueError(NO_CODES)
        return quantizer.lookup(of_quantizer(params), extra, codes)

    def compose(params, extra, codes):
        if scaled:
            return scaled.compose(of_quantizer(params), extra, codes)
        return vectors(params, extra, codes.reshape(-1, side, side))

    return Autoencoder(
        size=quantizer.size,
        shape=shape,
        init=init,
        quantize=quantized,
        latents=lambda params, x: quantizer.latent(encode(params, x)),
        codes=codes,
        vectors=vectors,
        compose=compose,
        draw=lambda params, vectors: decoder.apply({"params": params["decoder"]}, vectors),
        scales=scales,
        coarse=_coarse(scaled, of_quantizer),
    )


def _coarse(scaled: Scaled | None, of_quantizer: Callable) -> Callable:
    """`Autoencoder.coarse`. Raises ValueError without scales."""

    def coarse(params, extra, codes):
        if scaled is None:
            raise ValueError("this quantizer has one grid: nothing is coarser")
        return scaled.coarse(of_quantizer(params), extra, codes)

    return coarse


def check_combination(
    encoder_kind: str,
    values: Mapping[str, Any],
    quantizer: quantize.Quantizer,
    scales: tuple[int, ...],
    side: int,
    factor: int,
) -> None:
    """Raise ValueError if encoder, quantizer and scales do not fit each other.

    values: the fields of the section "quantizer".
    side: cells along the side of a picture.
    factor: pixels along the side of a cell.
    """
    patches = encoder_kind == "patches"
    if encoder_kind not in ENCODERS:
        raise ValueError(f"model.encoder is {encoder_kind!r}; it can be {' or '.join(ENCODERS)}")
    if scales and scales[-1] != side:
        raise ValueError(
            f"quantizer.scales ends with {scales[-1]}, and a picture has {side} x {side} cells of "
            f"{factor} px"
        )
    if patches and (values["kind"] not in ("vq", "ema") or quantizer.dim != 3 * factor**2):
        raise ValueError(
            f'model.encoder "patches" gives {3 * factor**2} numbers a cell: set quantizer.kind to '
            "vq or ema and quantizer.dim to that"
        )
    if (patches or scales) and values.get("normalize", values["kind"] in ("vq", "ema")):
        raise ValueError(
            "quantizer.normalize forgets how bright a patch is, and how little a finer grid adds: "
            'set it to False with model.encoder "patches" and with quantizer.scales'
        )


def make_abilities(net: Autoencoder) -> dict[str, Callable]:
    """Return the abilities of an autoencoder."""

    def encode(variables: Variables, inputs, keys=None):
        """Encode inputs["image"], uint8, to codes int32 [B, N].

        Without codes, to latents float [B, h, w, D].
        """
        params = variables.params["model"]
        z = net.latents(params, to_unit(inputs["image"]))
        return net.codes(params, variables.extra, z) if net.size else z

    def decode(variables: Variables, inputs, keys=None):
        """Decode inputs["codes"], int [B, N], or inputs["latent"] to uint8 [B, R, R, 3]."""
        params = variables.params["model"]
        if not net.size:
            return from_unit(net.draw(params, inputs["latent"]))
        return from_unit(net.draw(params, net.compose(params, variables.extra, inputs["codes"])))

    def reconstruct(variables: Variables, inputs, keys=None):
        """Encode and decode: the best that a model of these codes or latents can draw."""
        return decode(variables, {"codes" if net.size else "latent": encode(variables, inputs)})

    return {"encode": encode, "decode": decode, "reconstruct": reconstruct}
