"""LoRA files for Stable Diffusion: what we write diffusers draws with, and the reverse."""

import jax
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.numpy import load_file, save_file

import t2i_jax
from parity.test_stable_diffusion import (
    check_pictures,
    noise_of,
    our_pictures,
    stable_diffusion,
    stable_diffusion_xl,
    their_pictures,
)
from t2i_jax.convert import lora_file
from t2i_jax.families.lora import init_adapter

RANK, WEIGHT = 4, 0.7


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{name: the folder of a tiny Stable Diffusion}"""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("SD1", "SDXL")}
    stable_diffusion(tmp_path_factory.mktemp("tokenizer")).save_pretrained(folders["SD1"])
    stable_diffusion_xl(tmp_path_factory.mktemp("tokenizer")).save_pretrained(folders["SDXL"])
    return folders


def random_adapter(variables, pattern):
    """An adapter of the U-Net and the text encoders that changes pictures a lot."""
    trees = {"params": variables.params, "text": variables.frozen["text"]}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), trees)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: (0.5 * rng.normal(size=x.shape) * x.shape[0] ** -0.5).astype(np.float32),
        init_adapter(jax.random.key(0), shapes, RANK, pattern),
    )


@pytest.mark.parametrize(
    ("model", "name", "pattern"),
    [
        ("SD1", lora_file.DIFFUSERS, "attention/(query|key|value|out)/kernel"),
        ("SD1", "kohya.safetensors", "params.*(attention/|conv_|project_|mlp_).*kernel"),
        ("SD1", "kohya.safetensors", "text.*(attention/|mlp_).*kernel"),
        ("SDXL", "kohya.safetensors", "_transformer/.*kernel|text.*attention/.*kernel"),
        ("SDXL", lora_file.DIFFUSERS, "attention/.*kernel"),
    ],
)
def test_diffusers_draws_with_what_we_write(saved, model, name, pattern, tmp_path):
    plain, path, noise = t2i_jax.load(saved[model]), tmp_path / name, noise_of(32, 32)
    adapter = random_adapter(plain.variables, pattern)
    lora_file.write_lora(adapter, 1.5, plain.config, path)
    theirs = DiffusionPipeline.from_pretrained(saved[model])
    before = their_pictures(theirs, noise)
    theirs.load_lora_weights(tmp_path, weight_name=name, adapter_name="one")
    theirs.set_adapters(["one"], [WEIGHT])
    expected = their_pictures(theirs, noise)
    assert np.abs(expected - before).mean() > 1 / 255
    ours = t2i_jax.load(saved[model], overrides=[f"lora.add={path}:{WEIGHT}"])
    check_pictures(our_pictures(ours, noise), expected, f"{model}, {name}, {pattern}")


@pytest.mark.parametrize(("kohya", "dora"), [(False, False), (True, False), (False, True)])
def test_we_draw_with_what_peft_writes(saved, kohya, dora, tmp_path):
    theirs, noise = DiffusionPipeline.from_pretrained(saved["SD1"]), noise_of(32, 32)
    torch.manual_seed(0)
    names = {"unet": ["to_q", "to_v", "to_out.0", "conv1", "proj_in"], "text": ["q_proj", "fc1"]}
    for model, layers in ((theirs.unet, names["unet"]), (theirs.text_encoder, names["text"])):
        model.add_adapter(
            LoraConfig(
                r=RANK,
                lora_alpha=RANK,
                init_lora_weights=False,
                target_modules=layers,
                use_dora=dora,
            )
        )
        for name, value in model.named_parameters():
            if "magnitude" in name:
                value.data.mul_(torch.rand_like(value) + 0.5)
    expected = their_pictures(theirs, noise)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(theirs.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(theirs.text_encoder),
    )
    (path,) = tmp_path.glob("*.safetensors")
    assert path.name == lora_file.DIFFUSERS
    if kohya:
        path = with_kohyas_names(path, tmp_path / "other.safetensors")
    ours = t2i_jax.load(saved["SD1"], overrides=[f"lora.add={path}"])
    check_pictures(
        our_pictures(ours, noise), expected, f"written by peft, kohya: {kohya}, DoRA: {dora}"
    )
    plain = our_pictures(t2i_jax.load(saved["SD1"]), noise)
    assert np.abs(plain / 255.0 - expected).mean() > 2 / 255


def with_kohyas_names(path, target):
    """Write a file of peft with the names of kohya, and an alpha of half the rank."""
    arrays = {}
    for name, array in load_file(path).items():
        layer, _, part = name.rpartition(".lora_")
        layer = layer.replace("text_encoder.", "lora_te.").replace("unet.", "lora_unet.")
        if layer.startswith("lora_te.") and "text_model" not in layer:
            layer = layer.replace("lora_te.", "lora_te.text_model.")
        layer = layer.replace(".", "_")
        up = part == "B.weight"
        arrays[f"{layer}.lora_{'up' if up else 'down'}.weight"] = 2 * array if up else array
        arrays[f"{layer}.alpha"] = np.array(RANK / 2, np.float32)
    save_file(arrays, target)
    return target
