"""Whole pipelines of Stable Diffusion 3 and FLUX.1 against diffusers', from the same weights."""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from flax.traverse_util import flatten_dict, unflatten_dict
from peft.utils import get_peft_model_state_dict
from safetensors.numpy import load_file
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

import t2i_jax
from parity.agreement import random_model
from parity.test_lora import random_adapter
from parity.test_stable_diffusion import (
    CAPTIONS,
    GUIDANCE,
    NEGATIVE,
    PROMPTS,
    STEPS,
    VAE,
    check_pictures,
    our_pictures,
    text_encoder,
)
from parity.tiny_tokenizer import learn_t5
from t2i_jax.convert import diffusers_flow_out, lora_file
from t2i_jax.core.importer import Imported

NO_PART = [None, None]  # in model_index.json; diffusers wants to be told of it again
CHANNELS, T5_WIDTH = 8, 64  # of the latents, and of the text
TRANSFORMER = dict(
    num_attention_heads=4,
    attention_head_dim=16,
    joint_attention_dim=T5_WIDTH,
    num_layers=2,
)


def vae():
    """As those of both models: without the convolution between encoder and latents."""
    fields = {**VAE, "scaling_factor": 1.2, "shift_factor": 0.1}
    model = random_model(
        AutoencoderKL,
        **fields,
        latent_channels=CHANNELS,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(0.5)
    return model


def t5(folder):
    """A tiny T5 and its tokenizer, whose files are in the folder."""
    tokenizer = learn_t5(CAPTIONS, 90)
    config = T5Config(
        vocab_size=tokenizer.vocab_size,
        d_model=T5_WIDTH,
        d_kv=16,
        d_ff=96,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
    )
    return random_model(T5EncoderModel, config), tokenizer


def stable_diffusion_3(folder, with_t5=True):
    with_projection = dict(kind=CLIPTextModelWithProjection, projection_dim=12)
    first, tokenizer = text_encoder(folder, **with_projection)
    second, tokenizer_2 = text_encoder(folder, **{**with_projection, "hidden_size": 32})
    tokenizer_2.pad_token = "!"
    third, tokenizer_3 = t5(folder) if with_t5 else (None, None)
    net = random_model(
        SD3Transformer2DModel,
        **TRANSFORMER,
        sample_size=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        caption_projection_dim=64,
        pooled_projection_dim=24,
        pos_embed_max_size=24,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )
    return StableDiffusion3Pipeline(
        transformer=net,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
        text_encoder_3=third,
        tokenizer_3=tokenizer_3,
    )


def flux(folder, guidance):
    first, tokenizer = text_encoder(folder, kind=CLIPTextModel)
    second, tokenizer_2 = t5(folder)
    net = random_model(
        FluxTransformer2DModel,
        **TRANSFORMER,
        num_single_layers=1,
        in_channels=4 * CHANNELS,
        pooled_projection_dim=24,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        transformer=net,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance, shift=3.0),
        vae=vae(),
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer_2,
    )


def noise_of(width, height):
    shape = (2, height // 2, width // 2, CHANNELS)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def their_pictures(pipe, noise, **settings):
    pipe.set_progress_bar_config(disable=True)
    _, height, width, _ = noise.shape
    latents = torch.tensor(noise).permute(0, 3, 1, 2)
    if isinstance(pipe, FluxPipeline):
        latents = pipe._pack_latents(latents, 2, CHANNELS, height, width)
    return pipe(
        PROMPTS,
        latents=latents,
        height=2 * height,
        width=2 * width,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
        **settings,
    ).images


def check_written(ours, folder, written, noise, expected, **settings):
    """Check that diffusers loads what we write, and draws the same with the same arrays."""
    model = Imported(ours.config, ours.variables.params, ours.variables.frozen, ours.tokenizer)
    diffusers_flow_out.write(model, written)
    parts = json.loads((written / "model_index.json").read_text())
    absent = {
        name: None for name in ("text_encoder_3", "tokenizer_3") if parts.get(name) == NO_PART
    }
    pipe = DiffusionPipeline.from_pretrained(written, **absent)
    again = their_pictures(pipe, noise, **settings)
    check_pictures(np.round(255 * again).astype(np.uint8), expected, "written")
    for path in sorted(folder.rglob("*.safetensors")):
        before, after = load_file(path), load_file(written / path.relative_to(folder))
        same = {name.removeprefix("text_model."): array for name, array in after.items()}
        for name, array in before.items():
            np.testing.assert_array_equal(same[name.removeprefix("text_model.")], array, name)
        assert len(same) == len(before)


def test_stable_diffusion_3(tmp_path):
    pipe = stable_diffusion_3(tmp_path)
    pipe.save_pretrained(tmp_path / "sd3")
    ours = t2i_jax.load(tmp_path / "sd3")
    assert ours.settings({})["width"] == 32 and ours.settings({})["guidance"] == 7.0
    for width, height in ((32, 32), (40, 24)):
        noise, size = noise_of(width, height), dict(width=width, height=height)
        expected = their_pictures(pipe, noise, negative_prompt=[NEGATIVE] * 2)
        check_pictures(our_pictures(ours, noise, **size), expected, f"SD3, {width} x {height}")
    negative = dict(negative_prompt=[NEGATIVE] * 2)
    check_written(ours, tmp_path / "sd3", tmp_path / "written", noise, expected, **negative)


def test_stable_diffusion_3_without_t5(tmp_path):
    pipe = stable_diffusion_3(tmp_path, with_t5=False)
    pipe.save_pretrained(tmp_path / "sd3")
    ours, noise = t2i_jax.load(tmp_path / "sd3"), noise_of(40, 24)
    negative = dict(negative_prompt=[NEGATIVE] * 2)
    expected = their_pictures(pipe, noise, **negative)
    check_pictures(our_pictures(ours, noise, width=40, height=24), expected, "SD3 without T5")
    check_written(ours, tmp_path / "sd3", tmp_path / "written", noise, expected, **negative)


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
def test_flux(guidance, tmp_path):
    pipe = flux(tmp_path, guidance)
    pipe.save_pretrained(tmp_path / "flux")
    ours, noise = t2i_jax.load(tmp_path / "flux"), noise_of(40, 24)
    found, expected = our_pictures(ours, noise, width=40, height=24), their_pictures(pipe, noise)
    check_pictures(found, expected, f"FLUX, guidance {guidance}")
    check_written(ours, tmp_path / "flux", tmp_path / "written", noise, expected)


@pytest.mark.parametrize("model", ["SD3", "FLUX"])
def test_lora_files(model, tmp_path):
    """Diffusers draws with what we write, and we with what it writes."""
    theirs = stable_diffusion_3(tmp_path) if model == "SD3" else flux(tmp_path, True)
    theirs.save_pretrained(tmp_path / "model")
    plain, noise = t2i_jax.load(tmp_path / "model"), noise_of(40, 24)
    adapter = random_adapter(
        plain.variables, "params.*(query|key|value)/|text_encoder/.*attention/"
    )
    path = tmp_path / lora_file.DIFFUSERS
    lora_file.write_lora(adapter, 1.5, plain.config, path)
    negative = dict(negative_prompt=[NEGATIVE] * 2) if model == "SD3" else {}
    before = their_pictures(theirs, noise, **negative)
    theirs.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="one")
    theirs.set_adapters(["one"], [0.7])
    expected = their_pictures(theirs, noise, **negative)
    assert np.abs(expected - before).mean() > 1 / 255
    ours = t2i_jax.load(tmp_path / "model", overrides=[f"lora.add={path}:0.7"])
    found = our_pictures(ours, noise, width=40, height=24)
    check_pictures(found, expected, f"{model} with a LoRA")

    written = {
        "transformer_lora_layers": get_peft_model_state_dict(theirs.transformer, adapter_name="one")
    }
    type(theirs).save_lora_weights(tmp_path / "theirs", **written)
    again = lora_file.read_lora(tmp_path / "theirs" / lora_file.DIFFUSERS, plain.config)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        again["params"],
        jax.tree.map(np.asarray, scaled(adapter["params"], 1.5)),
    )
    with pytest.raises(ValueError, match=f"name the file {lora_file.DIFFUSERS}, not kohya"):
        lora_file.write_lora(adapter, 1.5, plain.config, tmp_path / "kohya.safetensors")


def scaled(adapter, scale):
    """Multiply the factors "up" of an adapter."""
    flat = flatten_dict(adapter)
    return unflatten_dict({k: x * scale if k[-1] == "up" else x for k, x in flat.items()})
