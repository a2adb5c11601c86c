"""A folder that diffusers loads, written from a run of family `stable_diffusion`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from t2i_jax.core.files import atomic_path, make_folder
from t2i_jax.core.importer import Imported
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models.autoencoder_kl import AutoencoderKL
from t2i_jax.text import clip_tokenizer
from t2i_jax.text.clip import make_towers
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.published import write_arrays
from t2i_jax.weights.stored import write_file

PYTORCH = {"format": "pt"}  # what transformers wants to be written in a file
ABSENT = [None, None]
VERSION = "0.6.0"  # of diffusers, which asks for it of pipelines that inpaint


def families() -> tuple[str, ...]:
    """Return the families whose runs `write` can write."""
    return ("stable_diffusion",)


def write(model: Imported, folder: Path) -> None:
    """Write a published pipeline: model_index.json, and a folder for each part."""
    config = model.config
    net, vae = make_net(config), make_autoencoder(config)
    scheduler = config.diffusion.scheduler.to_dict()
    null_text = model.frozen["null_text"][config.text.encoder]
    index = {
        "_diffusers_version": VERSION,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "feature_extractor": ABSENT,
        "image_encoder": ABSENT,
    }
    cell = 2 ** (len(vae.multipliers) - 1)
    unet_json = {**unet_weights.config_json(net), "sample_size": config.data.resolution // cell}
    params = model.params["model"]["net"]
    write_net(folder / "unet", unet_json, params, unet_weights.published(net))
    write_vae(folder / "vae", vae, config.data.resolution, model.frozen["first_stage"])
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    index |= write_towers(folder, config, model.frozen["text"], model.tokenizer)
    inpaint = "Inpaint" if net.in_channels != net.out_channels else ""
    if net.added_width:
        zeros = not bool(null_text["mask"].any())
        index |= {
            "_class_name": f"StableDiffusionXL{inpaint}Pipeline",
            "force_zeros_for_empty_prompt": zeros,
        }
    else:
        index |= {
            "_class_name": f"StableDiffusion{inpaint}Pipeline",
            "safety_checker": ABSENT,
            "requires_safety_checker": False,
        }
    write_json(folder / "model_index.json", index)  # last: it makes the folder a pipeline


def write_towers(folder: Path, config: Any, params: Mapping, tokenizer: Tokenizer) -> dict:
    """Write CLIP's text encoders and their tokenizers; return their entries in model_index.json.

    params: {name of an encoder: its parameters}.
    """
    index = {}
    for name, (tower, _, pad) in make_towers(config.text).items():
        text_json = clip_weights.text_config_json(tower)
        write_net(folder / name, text_json, params[name], clip_weights.text_published, "model")
        of = name.replace("text_encoder", "tokenizer")
        _write_tokenizer(folder / of, tokenizer, tower.length, pad)
        index |= {
            name: ["transformers", text_json["architectures"][0]],
            of: ["transformers", "CLIPTokenizer"],
        }
    return index


def write_vae(folder: Path, vae: AutoencoderKL, side: int, params: Any) -> None:
    """Write the autoencoder. side: of the usual pictures, in pixels."""
    config = {**autoencoder_weights.config_json(vae), "sample_size": side}
    write_net(folder, config, params, autoencoder_weights.published(vae))


def write_net(
    folder: Path, config: Mapping, params: Any, published: Callable, stem="diffusion_pytorch_model"
) -> None:
    """Write a network: its config.json, and the weight file of this stem."""
    write_json(folder / "config.json", config)
    with atomic_path(folder / f"{stem}.safetensors") as part:
        write_file(part, write_arrays(params, published), PYTORCH)


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, length: int, pad: int) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    start, end = clip_tokenizer.START, clip_tokenizer.END
    filling = tokenizer.id_to_token(pad)
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": filling}
    about = {"tokenizer_class": "CLIPTokenizer", "model_max_length": length, **special}
    write_json(folder / "vocab.json", model["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", about)
    write_json(folder / "special_tokens_map.json", special)


def write_json(path: Path, content: Mapping) -> None:
    """Write an object to a JSON file, whose folder is made."""
    make_folder(path.parent)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
