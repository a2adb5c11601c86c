"""Pictures and captions in one space: CLIP (arXiv 2103.00020) and SigLIP (arXiv 2303.15343).

A vision transformer or a ResNet reads pictures, or a feature map of EfficientNet-Lite0 that is not
trained (arXiv 2111.07991). The text encoder of the config reads captions. Both are projected to
unit vectors, whose products say how well they fit. Every example is compared with the whole global
batch, whatever the number of devices (contrastive_loss.py).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from t2i_jax.core.family import Context, Family, Frozen, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.pictures import to_unit
from t2i_jax.core.random import split_keys
from t2i_jax.families.captioning import PictureView, view_of_features
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.config_fields import (
    network_fields,
    read_section,
    remat_of,
    transformer_sections,
)
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.models.picture_resnet import PictureResNet
from t2i_jax.models.shared_space import SharedSpace
from t2i_jax.models.vision_transformer import VisionTransformer

MAX_SCALE = 100.0  # of the products (arXiv 2103.00020, section 2.5)
SOURCES = ("pixels", "features")
NETWORKS: Mapping[str, Any] = {
    "vision_transformer": VisionTransformer,
    "picture_resnet": PictureResNet,
}
NETWORK_FIELD = Field("vision_transformer", "what reads pictures", choices=(*NETWORKS,))
CONTRASTIVE_FIELDS = {
    "loss": Field("softmax", "CLIP's loss (softmax) or SigLIP's (sigmoid)", choices=(*KINDS,)),
    "source": Field("pixels", "what the network takes of a picture", choices=SOURCES),
    "map": Field(4, 'with "features": the map of EfficientNet-Lite0; 0 is the finest', 0),
    "channels": Field(128, "numbers in the vector of a picture or a caption", 1, 2**16),
}


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    sections = transformer_sections(VisionTransformer)
    if config.get("model", {}).get("network") == "picture_resnet":
        sections = {"model": network_fields(PictureResNet)}
    sections["model"] = {"network": NETWORK_FIELD, **sections["model"]}
    return {**sections, "contrastive": CONTRASTIVE_FIELDS}


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, data.resolution and text.

    Raises ValueError for an unknown loss or source, a feature map that does not exist, text.encoder
    "none", and settings that compute the loss on a part of a batch.
    """
    refuse_parts(config)
    settings = checked_settings(config)
    features = settings["source"] == "features"
    view = view_of_features(config, settings["map"]) if features else None
    kind = KINDS[settings["loss"]]
    conditioning = make_conditioning(config)
    tower = make_tower(config)
    space = SharedSpace(settings["channels"], kind.scale, kind.bias)

    def init(rng, batch):
        text_rng, image_rng, space_rng = jax.random.split(rng, 3)
        text, condition = conditioning.init(text_rng, batch)
        side = config.data.resolution
        shape = (*view.grid, view.channels) if view else (side, side, 3)
        pooled, image = tower.init_with_output(image_rng, jnp.zeros((1, *shape)))
        both = space.init(space_rng, pooled, condition.pooled)["params"]
        return {"model": {"text": text, "image": image["params"], "space": both}}, {}

    def image_vectors(model, frozen, batch, keys=None) -> Any:
        pooled = tower.apply({"params": model["image"]}, read_pictures(view, frozen, batch), keys)
        return space.apply({"params": model["space"]}, pooled, method="embed_image")

    def text_vectors(model, frozen, text, keys=None) -> Any:
        pooled = conditioning.encode(model["text"], frozen, text, keys).pooled
        return space.apply({"params": model["space"]}, pooled, method="embed_text")

    def loss(params, ctx: Context):
        """Return the loss of each picture and its caption among all of the global batch."""
        model, text = params["model"], conditioning.text_of(ctx.batch)
        image_keys, text_keys = split_keys(ctx.keys, 2) if ctx.train else (None, None)

        def logits(a, b) -> Any:
            return space.apply({"params": model["space"]}, a, b, method="logits")

        losses, found = contrast(
            kind,
            logits,
            image_vectors(model, ctx.frozen, ctx.batch, image_keys),
            text_vectors(model, ctx.frozen, text, text_keys),
            text["tokens"],
            ctx.weight,
            axis_name,
        )
        scale = jnp.full(len(losses), jnp.exp(model["space"]["log_scale"]))
        return losses, (ctx.extra, {"accuracy": found, "scale": scale})

    def embed_image(variables: Variables, inputs, keys):
        """Embed inputs["image"], uint8 [B, H, W, 3]: unit vectors float32 [B, channels]."""
        return image_vectors(variables.params["model"], variables.frozen, inputs)

    def embed_text(variables: Variables, inputs, keys):
        """Embed inputs["text"]: unit vectors float32 [B, channels]."""
        text = conditioning.text_of(inputs)
        return text_vectors(variables.params["model"], variables.frozen, text)

    abilities: dict[str, Any] = {"embed_image": embed_image, "embed_text": embed_text}
    return Family(
        init=init,
        losses={"model": loss},
        abilities=abilities,
        settings={"sample": {}},
        **frozen_tower(view),
        pretrained=conditioning.pretrained,
        constrain=limit_scale,
    )


def make_tower(config) -> Any:
    """Return the network that reads pictures. Raises ValueError for a name not in NETWORKS."""
    own = dict(config.model)
    name = own.pop("network", NETWORK_FIELD.default)
    if name not in NETWORKS:
        raise ValueError(f"model.network is {name!r}: it can be {' or '.join(NETWORKS)}")
    return NETWORKS[name](remat=remat_of(config), **own)


def checked_settings(config) -> dict[str, Any]:
    """Return the section `contrastive`. Raises ValueError for what it and `text` cannot be."""
    if config.text.encoder == "none":
        raise ValueError("text.encoder is 'none': a contrastive model has to read captions")
    settings = read_section(config, "contrastive", CONTRASTIVE_FIELDS)
    for name, known in (("loss", KINDS), ("source", SOURCES)):
        if settings[name] not in known:
            right = " or ".join(known)
            raise ValueError(f"contrastive.{name} = {settings[name]!r}: it can be {right}")
    return settings


def read_pictures(view: PictureView | None, frozen: Frozen, batch: Mapping) -> Any:
    """Return what the network reads of pictures: their pixels, or a feature map [B, h, w, C]."""
    if view is None:
        return to_unit(batch["image"])
    found = batch if "features" in batch else view.encoding.compute(frozen, batch["image"])
    vectors = view.vectors(frozen, found["features"])
    return vectors.reshape(-1, *view.grid, view.channels)


def frozen_tower(view: PictureView | None) -> dict[str, Any]:
    """Return the fields of a Family that its network of features needs; {} without one."""
    if view is None:
        return {}
    return {
        "frozen_depends_on": ("contrastive",),
        "make_frozen": view.make_frozen,
        "encoding": view.encoding,
    }


def refuse_parts(config) -> None:
    """Raise ValueError for settings by which a loss sees a part of a batch, or one example."""
    size, parts = config.train.batch_size, config.train.accumulate
    if parts > 1:
        raise ValueError(
            f"train.accumulate is {parts}: a contrastive loss compares every picture with all "
            "captions of the batch, and a part of it has fewer. Let it be 1; parallel.remat saves "
            "memory too"
        )
    if config.optim.clip_examples or config.privacy.clip:
        name = "privacy.clip" if config.privacy.clip else "optim.clip_examples"
        raise ValueError(
            f"{name} needs the gradient of each example by itself, and a contrastive "
            "loss compares examples: let it be 0"
        )
    if size < 2:
        raise ValueError(
            f"train.batch_size is {size}: a contrastive loss compares a picture with the captions "
            "of others; let it be at least 2"
        )


def limit_scale(player: str, params: Any) -> Any:
    """Return the parameters with a scale of the products of at most MAX_SCALE."""
    del player
    space = params["space"]
    limited = jnp.minimum(space["log_scale"], math.log(MAX_SCALE))
    return {**params, "space": {**space, "log_scale": limited}}
