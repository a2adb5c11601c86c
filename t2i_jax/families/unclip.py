"""unCLIP: draw a picture of an embedding (DALL-E 2, arXiv 2204.06125).

A diffusion family that is conditioned on embeddings of pictures (embedder.py) is a decoder. To draw
a caption, the run `config.prior.run` (prior.py) draws an embedding for it first; without a prior,
the embedding of the caption takes its place. The embedding of a picture gives variations of it, the
way to another picture, and changes that two captions describe (section 3).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from t2i_jax.core.family import Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import derive_keys
from t2i_jax.core.registry import lookup
from t2i_jax.families.config_fields import read_section
from t2i_jax.families.denoising import NEGATIVE
from t2i_jax.families.embedder import EMBEDDER_FIELDS, Embedder, load_embedder
from t2i_jax.families.latent_abilities import INTERPOLATE, spherical_interpolation
from t2i_jax.models.shared_space import unit_length

PRIOR_FIELDS = {
    "run": Field(
        "", "used when drawing: run of family prior; empty: the caption's embedding stands in"
    ),
    "config": Field({}, "that run's config; filled in when it is used"),
}
BEFORE, AFTER = "before", "after"  # names of settings, and of an ability's inputs
VARY_FIELDS = {
    BEFORE: Field("", "a caption of the picture as it is, for a change that two captions describe"),
    AFTER: Field("", "the same caption after the change; equal captions change nothing"),
    "amount": Field(0.35, "how far the embedding goes towards the change", 0.0, 1.0),
}
FIELDS = {"embedder": EMBEDDER_FIELDS, "prior": PRIOR_FIELDS, "vary": VARY_FIELDS}


def with_embeddings(family: Family, config) -> Family:
    """Return `family`, as a decoder of embeddings where `config.embedder` names a run.

    family: its conditioning is that of `conditioning_of`. As a decoder it draws an embedding for
        each caption first, and has the abilities "vary" and "interpolate".
    Raises ValueError as `load_embedder` and `make_draw_embeddings` do, for a cache of encodings,
    and for a prior without an embedder.
    """
    if not config.get("embedder", {}).get("run"):
        if config.get("prior", {}).get("run"):
            raise ValueError(
                "prior.run is of a model that draws pictures of embeddings, and embedder.run is "
                "empty: leave prior.run out"
            )
        return family
    if config.first_stage.cache:
        raise ValueError(
            "first_stage.cache keeps no pictures, which the embedder reads: let it be False"
        )
    embedder, draw = load_embedder(config), family.abilities["sample"]
    sample = family.settings["sample"]
    shared = {name: value for name, value in sample.items() if name != "candidates"}
    draw_embeddings = make_draw_embeddings(config, embedder)
    decoder_inputs = make_decoder_inputs(config, embedder)
    plain = {name: value for name, value in shared.items() if name not in family.texts}

    def of_captions(ability: Callable) -> Callable:
        def run(variables: Variables, inputs, keys, **settings):
            vectors = draw_embeddings(variables, inputs["text"], derive_keys(keys, 1))
            return ability(variables, decoder_inputs(variables, inputs, vectors), keys, **settings)

        return run

    abilities = {
        name: of_captions(ability)
        for name, ability in family.abilities.items()
        if name in ("sample", "edit", "inpaint")
    }
    rest = {"reconstruct", "encode", "decode"} & family.abilities.keys()  # they read no caption
    return family._replace(
        abilities={
            **abilities,
            **{name: family.abilities[name] for name in rest},
            "vary": make_vary(draw, config, embedder, decoder_inputs),
            "interpolate": make_interpolate(draw, plain, embedder, decoder_inputs),
        },
        settings={
            **family.settings,
            "vary": {**shared, **read_section(config, "vary", VARY_FIELDS)},
            "interpolate": INTERPOLATE,
        },
        texts=(*family.texts, BEFORE, AFTER),
        make_frozen=lambda source, read_run: {
            **family.make_frozen(source, read_run),
            "embedder": embedder.copy(read_run),
        },
        frozen_depends_on=(*family.frozen_depends_on, "embedder.config"),
    )


def make_draw_embeddings(config, embedder: Embedder) -> Callable:
    """Return (variables, {encoder: text} of B captions, keys [B]) -> embeddings float32 [B, C].

    They are drawn by the run that `config.prior` names, or are those of the captions. Raises
    ValueError for a run of another family.
    """
    run, name = config.prior.run, config.text.encoder
    if not run:
        return lambda of, texts, keys: embedder.text(of.frozen["embedder"], texts[name])
    other: Any = ConfigDict(config.prior.config.to_dict()).lock()
    if other.family != "prior":
        raise ValueError(f"prior.run: {run} is of family {other.family!r}; it must be 'prior'")
    draw = lookup("families", "prior")(other).abilities["embed_text"]

    def draw_embeddings(variables: Variables, texts, keys):
        inputs = {"text": {other.text.encoder: texts[name]}}
        return draw(Variables(*variables.frozen["prior"]), inputs, keys)

    return draw_embeddings


def make_decoder_inputs(config, embedder: Embedder) -> Callable:
    """Return (variables, inputs, embeddings [B, C]) -> the inputs of an ability of the decoder.

    Where the inputs have no "text", it is the empty caption. A negative prompt gets its own
    embedding; an empty one, the null embedding.
    """
    name = config.text.encoder

    def decoder_inputs(variables: Variables, inputs: Mapping, vectors: Float[Array, "B C"]) -> dict:
        null = variables.frozen["null_text"][name]
        empty = {key: jnp.broadcast_to(x, (len(vectors), *x.shape)) for key, x in null.items()}
        text = inputs.get("text", {name: empty})[name]
        told = {**inputs, "text": {name: {**text, "embedding": vectors}}}
        if NEGATIVE in inputs:
            text = inputs[NEGATIVE][name]
            is_empty = jnp.all(text["tokens"] == null["tokens"], axis=1, keepdims=True)
            vectors = jnp.where(is_empty, 0.0, embedder.text(variables.frozen["embedder"], text))
            told[NEGATIVE] = {name: {**text, "embedding": vectors}}
        return told

    return decoder_inputs


def make_vary(sample: Callable, config, embedder: Embedder, decoder_inputs: Callable) -> Callable:
    """Return the ability `vary`. sample: that of the decoder, of texts with embeddings."""
    name = config.text.encoder

    def vary(variables: Variables, inputs, keys, *, amount, **settings):
        """Draw inputs["image"], uint8 [B, H, W, 3], anew from its embedding.

        inputs: also "before" and "after", captions that describe a change.
        """
        arrays = variables.frozen["embedder"]
        vectors = embedder.image(arrays, inputs["image"])
        before, after = (embedder.text(arrays, inputs[end][name]) for end in (BEFORE, AFTER))
        told = decoder_inputs(variables, inputs, changed(vectors, after - before, amount))
        return sample(variables, told, keys, **settings)

    return vary


def changed(
    vectors: Float[Array, "B C"], difference: Float[Array, "B C"], amount: float | Float[Array, ""]
) -> Float[Array, "B C"]:
    """Return embeddings moved on the sphere towards a difference of two captions' embeddings.

    Source: text diffs, arXiv 2204.06125, section 3.3. A difference of 0 changes nothing.
    """
    moved = spherical_interpolation(vectors, unit_length(difference), jnp.reshape(amount, 1))[:, 0]
    return jnp.where(jnp.any(difference != 0, axis=1, keepdims=True), moved, vectors)


def make_interpolate(
    sample: Callable, settings: Mapping[str, Any], embedder: Embedder, decoder_inputs: Callable
) -> Callable:
    """Return the ability `interpolate`. settings: of `sample`, without captions."""

    def interpolate(variables: Variables, inputs, keys, *, steps):
        """Draw the way from inputs["image"] to "image_b": uint8 [B, steps, H, W, 3].

        All pictures of a way start from the same noise (section 3.2).
        """
        arrays = variables.frozen["embedder"]
        first, last = (embedder.image(arrays, inputs[end]) for end in ("image", "image_b"))
        way = spherical_interpolation(first, last, jnp.linspace(0.0, 1.0, steps))

        def draw(vectors):
            return sample(variables, decoder_inputs(variables, {}, vectors), keys, **settings)

        return jax.lax.map(draw, way.swapaxes(0, 1)).swapaxes(0, 1)

    return interpolate
