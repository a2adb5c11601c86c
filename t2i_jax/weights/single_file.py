"""Stable Diffusion 1, 2 and XL in one file, with the names of the original programs.

The names are mapped to those of diffusers, which the other files of this folder read. An array of
the file is read when its turn comes.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.derived import DerivedArrays, Source

UNET, AUTOENCODER = "model.diffusion_model.", "first_stage_model."
OPEN_CLIP, CLIP_L = "model.", "transformer."  # after the prefix of a text encoder
SD2_BLOCK = "cond_stage_model.model.transformer.resblocks."
SD2_BLOCKS = clip.TEXT_VARIANTS["OpenCLIP-ViT-H"]["depth"]

# Text encoders of each kind of file: the folder of diffusers, our variant, and the prefix.
ENCODERS = {
    "SDXL": {
        "text_encoder": ("ViT-L/14", f"conditioner.embedders.0.{CLIP_L}"),
        "text_encoder_2": ("OpenCLIP-ViT-bigG", f"conditioner.embedders.1.{OPEN_CLIP}"),
    },
    "SDXL-refiner": {
        "text_encoder_2": ("OpenCLIP-ViT-bigG", f"conditioner.embedders.0.{OPEN_CLIP}")
    },
    "SD1": {"text_encoder": ("ViT-L/14", f"cond_stage_model.{CLIP_L}")},
    "SD2": {"text_encoder": ("OpenCLIP-ViT-H", f"cond_stage_model.{OPEN_CLIP}")},
}
# Constants of the noise schedule, which the settings of the sampler replace; averaged weights, and
# other remains of training; parts of CLIP that no U-Net uses.
IGNORED_PREFIXES = ("model_ema.", "first_stage_model.loss.", "posterior_", "sqrt_")
IGNORED = {
    *("betas", "alphas_cumprod", "alphas_cumprod_prev", "log_one_minus_alphas_cumprod"),
    *("logvar", "global_step", "denoiser.sigmas", "cond_stage_model.model.text_projection"),
    *(f"{at}.logit_scale" for at in ("cond_stage_model", "cond_stage_model.model")),
    *(f"conditioner.embedders.{i}.{at}logit_scale" for i in (0, 1) for at in ("", OPEN_CLIP)),
}

UNET_LAYERS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
UNET_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
AUTOENCODER_LAYERS = {"norm_out": "conv_norm_out", "nin_shortcut": "conv_shortcut"}
AUTOENCODER_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
OPEN_CLIP_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


class Part(NamedTuple):
    """One network of a file.

    net: the module.
    arrays: by their names in diffusers.
    read: (arrays, net, source) -> parameters.
    """

    net: Any
    arrays: DerivedArrays
    read: Callable[..., Any]


def parts(arrays: Mapping[str, np.ndarray], source: str) -> dict[str, Part]:
    """Return the networks of a file, by the names of their folders in diffusers.

    A file does not say whether its U-Net predicts the noise or the velocity (some of version 2 do).

    arrays: those of the file, by their original names.
    source: where they come from, for messages.
    Raises ValueError, naming them, for arrays that belong to no network, and for other networks.
    """
    variant = kind(arrays, source)
    found: dict[str, Part] = {}

    def add(name, net, weights_read, sources):
        found[name] = Part(net, DerivedArrays(arrays, sources), weights_read)

    sources = unet_sources(_under(arrays, UNET))
    first = sources.get("conv_in.weight")
    fields: dict[str, Any] = {**sd_unet.VARIANTS[variant]}
    if first is not None:  # 9 for inpainting
        fields["in_channels"] = arrays[first.name].shape[1]
    add("unet", sd_unet.UNet2DConditionModel(**fields), unet_weights.read, sources)

    fields = {**autoencoder_kl.VARIANTS["SDXL" if variant.startswith("SDXL") else "SD"]}
    sources = autoencoder_sources(_under(arrays, AUTOENCODER))
    add("vae", autoencoder_kl.AutoencoderKL(**fields), autoencoder_weights.read, sources)

    for name, (tower, prefix) in ENCODERS[variant].items():
        names = _under(arrays, prefix)
        if prefix.endswith(CLIP_L):
            sources = {words: Source(f"{prefix}{words}") for words in names.values()}
        else:
            sources = open_clip_sources(names)
        add(name, clip.TextTower(**clip.TEXT_VARIANTS[tower]), clip_weights.read_text, sources)

    used = {s.name for part in found.values() for s in part.arrays.sources.values()}
    left = sorted(name for name in set(arrays) - used if not _is_ignored(name))
    if left:
        raise ValueError(
            f"{source} has {len(left)} arrays that no network of {variant} uses: "
            f"{', '.join(left[:5])}{', ...' if len(left) > 5 else ''}"
        )
    return found


def kind(names: Iterable[str], source: str) -> str:
    """Return which model a file holds, one of ENCODERS, by the names of its arrays.

    Raises ValueError if it is none of them.
    """
    names = set(names)
    for variant, encoders in ENCODERS.items():
        prefixes = (UNET, AUTOENCODER, *(prefix for _, prefix in encoders.values()))
        if all(any(name.startswith(prefix) for name in names) for prefix in prefixes):
            return variant
    some = ", ".join(sorted(names)[:3])
    raise ValueError(
        f"{source} is no whole Stable Diffusion 1, 2 or XL in its original format: that has "
        f"{UNET}*, {AUTOENCODER}*, and cond_stage_model.* or conditioner.embedders.*; this has "
        f"{len(names)} arrays ({some}, ...)"
    )


def unet_sources(names: Mapping[str, str]) -> dict[str, Source]:
    """Return where the arrays of diffusers' U-Net come from.

    names: {name in the file: the same without the prefix}.
    """
    halved = [words.split(".") for words in names.values() if ".0.op." in words]
    stage = min((int(number) for _, number, *_ in halved), default=3)  # blocks of a level, plus 1

    def new_name(name):
        layer, _, leaf = name.rpartition(".")
        if layer in UNET_LAYERS:
            return f"{UNET_LAYERS[layer]}.{leaf}"
        half, number, *rest = layer.split(".")
        if half == "middle_block":
            block, place, inner = "mid_block", int(number) // 2, ["01"[int(number) % 2], *rest]
        else:
            level, place = divmod(int(number) - (half == "input_blocks"), stage)
            block = f"{'down' if half == 'input_blocks' else 'up'}_blocks.{level}"
            inner = rest
        if inner[1:] in (["op"], ["conv"]):
            return f"{block}.{block.split('_')[0]}samplers.0.conv.{leaf}"
        if inner[0] == "0":
            return f"{block}.resnets.{place}.{UNET_RESIDUAL['.'.join(inner[1:])]}.{leaf}"
        return ".".join([block, "attentions", str(place), *inner[1:], leaf])

    return _map(names, new_name)


def original_unet_layer(name: str, net: sd_unet.UNet2DConditionModel) -> str:
    """Return the original name of a layer of diffusers' U-Net: the inverse of `unet_sources`.

    name: without its leaf: "down_blocks.1.attentions.0.proj_in".
    """
    for theirs, ours in UNET_LAYERS.items():
        if name == ours:
            return theirs
    half, *words = name.split(".")
    if half == "mid_block":
        kind, place, *inner = words
        number = 1 if kind == "attentions" else 2 * int(place)
        return ".".join(["middle_block", str(number), *_original_inner(kind, inner)])
    level, kind, place, *inner = words
    first = int(level) * (net.blocks + 1)
    if kind == "downsamplers":
        return f"input_blocks.{1 + first + net.blocks}.0.op"
    if kind == "upsamplers":  # after a residual block, and attention if there is some
        return f"output_blocks.{first + net.blocks}.{1 + (net.depths[-1 - int(level)] > 0)}.conv"
    if half == "down_blocks":
        first, half = 1 + first, "input_blocks"
    else:
        half = "output_blocks"
    inner = ["1" if kind == "attentions" else "0", *_original_inner(kind, inner)]
    return ".".join([half, str(first + int(place)), *inner])


def _original_inner(kind: str, inner: list[str]) -> list[str]:
    if kind == "attentions":
        return inner
    return [old for old, new in UNET_RESIDUAL.items() if new == inner[0]]


def autoencoder_sources(names: Mapping[str, str]) -> dict[str, Source]:
    """Return where the arrays of diffusers' AutoencoderKL come from; `names` as above."""
    levels = 1 + max(
        (int(words.split(".")[2]) for words in names.values() if ".down." in words), default=0
    )

    def new_name(name):
        layer, _, leaf = name.rpartition(".")
        half, *words = layer.split(".")
        if not words:  # quant_conv and post_quant_conv
            return name
        last = AUTOENCODER_LAYERS.get(words[-1], words[-1])
        if words[0] == "mid" and words[1] == "attn_1":
            return f"{half}.mid_block.attentions.0.{AUTOENCODER_ATTENTION[words[2]]}.{leaf}"
        if words[0] == "mid":
            place = int(words[1].removeprefix("block_")) - 1
            return f"{half}.mid_block.resnets.{place}.{last}.{leaf}"
        if words[0] not in ("down", "up"):
            return f"{half}.{last}.{leaf}"
        direction, level, part = words[0], int(words[1]), words[2]
        level = level if direction == "down" else levels - 1 - level
        inner = f"resnets.{words[3]}.{last}" if part == "block" else f"{direction}samplers.0.conv"
        return f"{half}.{direction}_blocks.{level}.{inner}.{leaf}"

    sources = _map(names, new_name)
    return {
        # Attention is stored as 1 x 1 convolutions.
        name: Source(s.name, lambda a: a.reshape(a.shape[:2])) if _is_matrix(name) else s
        for name, s in sources.items()
    }


def open_clip_sources(names: Mapping[str, str]) -> dict[str, Source]:
    """Return where the arrays of a CLIP text encoder come from that OpenCLIP has; `names` as above.

    Stable Diffusion 2 stops before the last block: its arrays, and the projection, are left out.
    """
    top = {
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "ln_final.weight": "text_model.final_layer_norm.weight",
        "ln_final.bias": "text_model.final_layer_norm.bias",
    }
    sources: dict[str, Source] = {}
    for stored, words in names.items():
        if words in top:
            sources[top[words]] = Source(stored)
        elif _is_ignored(stored):
            continue
        elif words == "text_projection":
            sources["text_projection.weight"] = Source(stored, np.transpose)
        elif words.startswith("transformer.resblocks."):
            number, *layers, leaf = words.split(".")[2:]
            at, layer = f"text_model.encoder.layers.{number}", ".".join(layers)
            if leaf.startswith("in_proj_"):  # queries, keys and values in one
                for i, part in enumerate("qkv"):
                    name = f"{at}.self_attn.{part}_proj.{leaf.removeprefix('in_proj_')}"
                    sources[name] = Source(stored, lambda a, i=i: np.split(a, 3)[i])
            elif layer in OPEN_CLIP_LAYERS:
                sources[f"{at}.{OPEN_CLIP_LAYERS[layer]}.{leaf}"] = Source(stored)
    return sources


def _under(names: Iterable[str], prefix: str) -> dict[str, str]:
    """Return {name: the same without the prefix} of the names that have it."""
    return {
        name: name.removeprefix(prefix)
        for name in names
        if name.startswith(prefix) and not name.startswith(IGNORED_PREFIXES)
    }


def _map(names, new_name) -> dict[str, Source]:
    """Return the sources of the names that `new_name` knows; the others are left over."""
    sources = {}
    for stored, words in names.items():
        try:
            sources[new_name(words)] = Source(stored)
        except (KeyError, ValueError, IndexError):
            continue
    return sources


def _is_matrix(name: str) -> bool:
    return ".attentions." in name and name.endswith(".weight") and "group_norm" not in name


def _is_ignored(name: str) -> bool:
    if name in IGNORED or name.startswith(IGNORED_PREFIXES):
        return True
    block = name.removeprefix(SD2_BLOCK).split(".")[0] if name.startswith(SD2_BLOCK) else ""
    return block.isdigit() and int(block) >= SD2_BLOCKS
