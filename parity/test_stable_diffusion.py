"""Whole pipelines of Stable Diffusion against diffusers', from the same weights and noise."""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers import schedulers as theirs
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as img2img
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as inpaint
from diffusers.pipelines.stable_diffusion_xl import (
    pipeline_stable_diffusion_xl_inpaint as inpaint_xl,
)
from safetensors.numpy import load_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

import t2i_jax
from parity.agreement import random_model
from parity.tiny_tokenizer import END, write_tokenizer
from t2i_jax.convert import diffusers_out
from t2i_jax.core.importer import Imported
from t2i_jax.runs.batches import run_ability, split_static

CAPTIONS = ["a large red circle above a small blue square", "", "two cafés, naïve art 🦊"]
PROMPTS, NEGATIVE = ["a large red circle", "naïve blue art"], "small square"
LENGTH, STEPS, GUIDANCE = 16, 6, 4.0
UNET = dict(
    # With 32 channels, norms would have groups of one channel, and remove the time.
    block_out_channels=[64, 96],
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
    layers_per_block=1,
    cross_attention_dim=24,
    attention_head_dim=4,
    sample_size=16,
)
VAE = dict(
    block_out_channels=(32, 64),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    layers_per_block=1,
    scaling_factor=0.3,
)
TEXT = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=LENGTH,
)
BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
SCHEDULERS = {
    "PNDM": theirs.PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
    "DDIM": theirs.DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    ),
    "Euler": theirs.EulerDiscreteScheduler(**BETAS),
    "DPM++ 2M Karras": theirs.DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True),
}


def text_encoder(folder, kind=CLIPTextModel, **fields):
    """A tiny text encoder and its tokenizer, whose files are in the folder."""
    stored = folder / "vocab.json"
    vocab = json.loads(stored.read_text()) if stored.exists() else write_tokenizer(folder, CAPTIONS)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        eos_token_id=vocab[END],
        bos_token_id=vocab[END] - 1,
        **{**TEXT, **fields},
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=LENGTH)
    return random_model(kind, config), tokenizer


def vae():
    """A tiny autoencoder whose pictures are neither grey nor mostly black and white."""
    model = random_model(AutoencoderKL, **VAE)
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(0.3)
    return model


def unet(**fields):
    """A tiny U-Net whose prediction has about unit variance."""
    model = random_model(UNet2DConditionModel, **{**UNET, **fields})
    with torch.no_grad():
        model.conv_out.weight.mul_(0.5)
    return model


def stable_diffusion(folder, pad=END, scheduler="PNDM", text=(), **fields):
    encoder, tokenizer = text_encoder(folder, **dict(text))
    tokenizer.pad_token = pad
    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet(**fields),
        scheduler=SCHEDULERS[scheduler],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(folder, zeros=True, **fields):
    first, tokenizer = text_encoder(folder)
    wide = dict(hidden_size=32, projection_dim=20, hidden_act="gelu", num_hidden_layers=3)
    second, tokenizer_2 = text_encoder(folder, CLIPTextModelWithProjection, **wide)
    tokenizer_2.pad_token = "!"
    net = unet(
        cross_attention_dim=24 + 32,
        use_linear_projection=True,
        transformer_layers_per_block=[2, 1],
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
        **fields,
    )
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=net,
        scheduler=SCHEDULERS["Euler"],
        force_zeros_for_empty_prompt=zeros,
        add_watermarker=False,
    )


def noise_of(width, height):
    return np.random.default_rng(0).normal(size=(2, height // 2, width // 2, 4)).astype(np.float32)


def their_pictures(pipe, noise, negative=NEGATIVE, prompts=PROMPTS, **settings):
    pipe.set_progress_bar_config(disable=True)
    latents = torch.tensor(noise).permute(0, 3, 1, 2)
    negative = None if negative is None else [negative] * len(PROMPTS)
    return pipe(
        prompts,
        negative_prompt=negative,
        latents=latents,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
        **settings,
    ).images


def our_pictures(pipe, noise, ability="sample", more=(), prompts=PROMPTS, **given):
    given = {"steps": STEPS, "guidance": GUIDANCE, "negative_prompt": NEGATIVE, **given}
    given = {name: value for name, value in given.items() if name in pipe.settings({}, ability)}
    settings = pipe.settings(given, ability)
    traced, static = split_static(pipe.family, settings)
    inputs = {**pipe._texts(prompts, settings), "noise": noise}
    inputs, keys = {**inputs, **dict(more)}, jax.random.split(jax.random.key(0), 2)
    draw = pipe.family.abilities[ability]
    return np.asarray(run_ability(draw, pipe.variables, inputs, keys, traced, static))


def check_pictures(found, expected, what):
    """Check that pictures agree and are not trivial. found: uint8. expected: in [0, 1]."""
    levels = np.round(255 * expected)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert expected.std() > 0.1 and np.abs(expected[0] - expected[1]).mean() > 0.02, what
    assert ((expected > 0.01) & (expected < 0.99)).mean() > 0.5, f"{what} is black and white"
    difference = np.abs(found - levels)
    print(f"{what}: difference of levels {difference.mean():.1e}, at most {difference.max():.0f}")
    assert difference.mean() < 0.1, f"{what}: {difference.mean():.2f} levels"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(a tiny Stable Diffusion 1, its folder)"""
    folder = tmp_path_factory.mktemp("sd1")
    pipe = stable_diffusion(tmp_path_factory.mktemp("tokenizer"))
    pipe.save_pretrained(folder)
    return pipe, folder


def test_stable_diffusion_1(saved, tmp_path):
    pipe, folder = saved
    ours, noise = t2i_jax.load(folder), noise_of(32, 32)
    assert ours.settings({})["width"] == 32 and ours.settings({})["guidance"] == 7.5
    expected = their_pictures(pipe, noise)
    check_pictures(our_pictures(ours, noise), expected, "Stable Diffusion 1")
    # The negative prompt, guidance and caption have their influence.
    for change in ({"negative_prompt": ""}, {"guidance": 1.0}):
        other = our_pictures(ours, noise, **change)
        assert np.abs(other / 255.0 - expected).mean() > 2 / 255, change
    check_pictures(
        our_pictures(ours, noise, negative_prompt=""),
        their_pictures(pipe, noise, negative=None),
        "without a negative prompt",
    )
    noise, size = noise_of(40, 24), dict(width=40, height=24)
    expected = their_pictures(pipe, noise, **size)
    check_pictures(our_pictures(ours, noise, **size), expected, "another size")
    check_written(ours, folder, tmp_path, noise, expected, size)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_schedulers(saved, scheduler, prediction, tmp_path):
    if (scheduler, prediction) == ("PNDM", "v_prediction"):
        return
    pipe, folder = saved
    own = SCHEDULERS[scheduler]
    pipe.scheduler = type(own).from_config(own.config, prediction_type=prediction)
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in folder.iterdir():
        if part.name != "scheduler":
            (copy / part.name).symlink_to(part)
    pipe.scheduler.save_pretrained(copy / "scheduler")
    noise = noise_of(32, 32)
    check_pictures(
        our_pictures(t2i_jax.load(copy), noise),
        their_pictures(pipe, noise),
        f"{scheduler}, {prediction}",
    )


def test_stable_diffusion_2(tmp_path_factory):
    """Linear projections, GELU, padding with token 0, velocity."""
    pipe = stable_diffusion(
        tmp_path_factory.mktemp("tokenizer"),
        pad="!",
        text={"hidden_act": "gelu"},
        use_linear_projection=True,
        attention_head_dim=[2, 4],
    )
    pipe.scheduler = theirs.DDIMScheduler(
        **BETAS, clip_sample=False, steps_offset=1, prediction_type="v_prediction"
    )
    folder = tmp_path_factory.mktemp("sd2")
    pipe.save_pretrained(folder)
    noise = noise_of(32, 32)
    ours = t2i_jax.load(folder)
    assert ours.config.text.towers.text_encoder.pad == pipe.tokenizer.pad_token_id
    check_pictures(our_pictures(ours, noise), their_pictures(pipe, noise), "Stable Diffusion 2")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_files_of_half_precision_and_in_parts(saved, dtype, tmp_path):
    half = StableDiffusionPipeline.from_pretrained(saved[1], torch_dtype=dtype)
    half.save_pretrained(tmp_path, max_shard_size="200KB", variant="half")
    assert len(list((tmp_path / "unet").glob("*.half-*.safetensors"))) > 2
    noise = noise_of(32, 32)
    expected = their_pictures(half.to(torch.float32), noise)
    check_pictures(our_pictures(t2i_jax.load(tmp_path), noise), expected, str(dtype))


@pytest.mark.parametrize("zeros", [True, False])
def test_stable_diffusion_xl(zeros, tmp_path_factory):
    """Two text encoders, the hidden state before the last, the pooled text, and six numbers."""
    pipe = stable_diffusion_xl(tmp_path_factory.mktemp("tokenizer"), zeros)
    folder = tmp_path_factory.mktemp("sdxl")
    pipe.save_pretrained(folder)
    ours, noise = t2i_jax.load(folder), noise_of(40, 24)
    size = dict(width=40, height=24)
    expected = their_pictures(pipe, noise, **size)
    check_pictures(our_pictures(ours, noise, **size), expected, "SDXL")
    check_pictures(
        our_pictures(ours, noise, negative_prompt="", **size),
        their_pictures(pipe, noise, negative=None, **size),
        f"SDXL without a negative prompt, zeros: {zeros}",
    )
    check_written(ours, folder, tmp_path_factory.mktemp("written"), noise, expected, size)


def check_written(ours, folder, written, noise, expected, size):
    """Check that diffusers loads what we write, and draws the same with the same arrays."""
    model = Imported(ours.config, ours.variables.params, ours.variables.frozen, ours.tokenizer)
    diffusers_out.write(model, written)
    again = DiffusionPipeline.from_pretrained(written)
    again.set_progress_bar_config(disable=True)
    check_pictures(
        np.round(255 * their_pictures(again, noise, **size)).astype(np.uint8), expected, "written"
    )
    for path in sorted(folder.rglob("*.safetensors")):
        before, after = load_file(path), load_file(written / path.relative_to(folder))
        if path.parent.name.startswith("text_encoder"):  # the names of the published files
            before = {
                name if name.startswith("text_") else f"text_model.{name}": array
                for name, array in before.items()
            }
        assert before.keys() == after.keys()
        for name, array in before.items():
            np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.mark.parametrize("scheduler", ["DDIM", "Euler"])
def test_edit(saved, scheduler, monkeypatch):
    """Image to image from the mean of the latents, and with the same noise."""
    pipe, folder = saved
    file = folder / "scheduler" / "scheduler_config.json"
    published = {**json.loads(file.read_text()), "clip_sample": False}
    solver = type(SCHEDULERS[scheduler]).from_config(published)
    theirs_too = StableDiffusionImg2ImgPipeline.from_pipe(pipe, scheduler=solver)
    theirs_too.set_progress_bar_config(disable=True)
    ours, noise = t2i_jax.load(folder), noise_of(32, 32)
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    images = images.repeat(8, 1).repeat(8, 2)
    with monkeypatch.context() as patch:
        channels = torch.tensor(noise).permute(0, 3, 1, 2)
        patch.setattr(img2img, "randn_tensor", lambda *_, **__: channels)
        patch.setattr(img2img, "retrieve_latents", lambda out, **_: out.latent_dist.mode())
        expected = theirs_too(
            PROMPTS,
            image=torch.tensor(images / 255.0, dtype=torch.float32).permute(0, 3, 1, 2),
            negative_prompt=[NEGATIVE] * 2,
            strength=0.7,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="np",
        ).images
    name = {"DDIM": "ddim", "Euler": "euler"}[scheduler]
    found = our_pictures(ours, noise, "edit", {"image": images}, strength=0.7, sampler=name)
    check_pictures(found, expected, f"edit, {scheduler}")


@pytest.mark.parametrize("model", ["1", "XL"])
def test_inpainting_with_a_network_for_it(model, tmp_path, monkeypatch):
    """Nine channels: the latents, the mask, and the latents of what is not masked."""
    (tmp_path / "tokenizer").mkdir()
    if model == "1":
        pipe = stable_diffusion(tmp_path / "tokenizer", scheduler="DDIM", in_channels=9)
        theirs_too, module = StableDiffusionInpaintPipeline(**pipe.components), inpaint
    else:
        pipe = stable_diffusion_xl(tmp_path / "tokenizer", in_channels=9)
        parts = {k: v for k, v in pipe.components.items() if k != "image_encoder"}
        theirs_too, module = StableDiffusionXLInpaintPipeline(**parts), inpaint_xl
    theirs_too.set_progress_bar_config(disable=True)
    theirs_too.save_pretrained(tmp_path / "model")
    ours, noise = t2i_jax.load(tmp_path / "model"), noise_of(32, 32)
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    images = images.repeat(8, 1).repeat(8, 2)
    mask = np.zeros((2, 32, 32), bool)
    mask[:, 4:20, 8:] = True
    with monkeypatch.context() as patch:
        patch.setattr(module, "retrieve_latents", lambda out, **_: out.latent_dist.mode())
        expected = theirs_too(
            PROMPTS,
            image=torch.tensor(images / 255.0, dtype=torch.float32).permute(0, 3, 1, 2),
            mask_image=torch.tensor(mask[:, None], dtype=torch.float32),
            negative_prompt=[NEGATIVE] * 2,
            strength=1.0,
            latents=torch.tensor(noise).permute(0, 3, 1, 2),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=32,
            width=32,
            output_type="np",
        ).images
    inputs = {"image": images, "mask": mask}
    found = our_pictures(ours, noise, "inpaint", inputs, strength=1.0)
    np.testing.assert_array_equal(found[~mask], images[~mask])
    expected = np.where(mask[..., None], expected, images / 255.0)  # theirs draws all pixels
    check_pictures(found, expected, f"inpainting, Stable Diffusion {model}")
    other = our_pictures(ours, noise, "inpaint", {**inputs, "image": images[::-1]}, strength=1.0)
    assert np.abs(other[mask] / 255 - expected[mask]).mean() > 2 / 255  # it sees what is around
    assert our_pictures(ours, noise).std() > 20  # everything is hidden
    written = tmp_path / "written"
    model = Imported(ours.config, ours.variables.params, ours.variables.frozen, ours.tokenizer)
    diffusers_out.write(model, written)
    assert type(DiffusionPipeline.from_pretrained(written)) is type(theirs_too)
