"""Original names of Stable Diffusion, against diffusers' own conversion at the published sizes.

Whole files are read in tests/weights/test_single_file.py.
"""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import single_file_utils as theirs

import t2i_jax
from parity.test_stable_diffusion import (
    check_pictures,
    noise_of,
    our_pictures,
    stable_diffusion,
    their_pictures,
)
from t2i_jax.convert.diffusers_parts import with_special_tokens
from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.text import clip_tokenizer
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights import single_file
from tests.convert.test_single_file import write
from tests.weights.original_names import autoencoder_names, open_clip_names, unet_names


def origins(sources):
    return {name: source.name for name, source in sources.items()}


def prefixed(prefix, names):
    return {f"{prefix}{name}": name for name in names}


@pytest.mark.parametrize("variant", single_file.ENCODERS)
def test_names_of_the_unet(variant):
    net = sd_unet.UNet2DConditionModel(**sd_unet.VARIANTS[variant])
    names = prefixed(single_file.UNET, unet_names(net))
    config = unet_weights.config_json(net)
    with torch.device("meta"):
        model = UNet2DConditionModel.from_config(config)
    ours = origins(single_file.unet_sources(names))
    assert set(ours.values()) == set(names) and set(ours) == set(model.state_dict())
    # It moves what it finds, whatever that is.
    assert ours == theirs.convert_ldm_unet_checkpoint({n: n for n in names}, config)


def test_names_of_the_autoencoder():
    net = autoencoder_kl.AutoencoderKL(**autoencoder_kl.VARIANTS["SD"])
    names = prefixed(single_file.AUTOENCODER, autoencoder_names(net))
    config = autoencoder_weights.config_json(net)
    with torch.device("meta"):
        model = AutoencoderKL.from_config(config)
    arrays = {name: torch.full((2, 3, 1, 1), float(i)) for i, name in enumerate(names)}
    ours = single_file.autoencoder_sources(names)
    assert {s.name for s in ours.values()} == set(names) and set(ours) == set(model.state_dict())
    expected = theirs.convert_ldm_vae_checkpoint(arrays, config)
    assert set(expected) == set(ours)
    for name, (stored, change) in ours.items():
        found = change(arrays[stored].numpy())
        if name.endswith("bias") or "group_norm" in name:
            assert found.flat[0] == expected[name].flatten()[0]  # theirs squeezes biases too
        else:
            np.testing.assert_array_equal(found, expected[name], err_msg=name)


@pytest.mark.parametrize("variant", ["SD2", "SDXL"])
def test_arrays_of_open_clip(variant):
    """SD2 leaves out block 23; both split what is stored in one."""
    prefix = list(single_file.ENCODERS[variant].values())[-1][1]
    names, r = prefixed(prefix, open_clip_names(24)), np.random.default_rng(0)
    shapes = {"in_proj_weight": (24, 8), "in_proj_bias": (24,)}
    arrays = {n: r.normal(size=shapes.get(n.split(".")[-1], (8, 8))) for n in names}
    config = type("Config", (), {"hidden_size": 8})
    expected = theirs.convert_open_clip_checkpoint(
        type("Model", (), {"config": config}),
        {name: torch.tensor(array) for name, array in arrays.items()},
        prefix,
    )
    found = single_file.DerivedArrays(arrays, single_file.open_clip_sources(names))
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert ("text_projection.weight" in found) == (variant == "SDXL")
    depth = {int(n.split(".")[3]) for n in found if ".layers." in n}
    assert max(depth) == (22 if variant == "SD2" else 23)


def test_a_whole_file(tmp_path, monkeypatch):
    """Both draw the same from one file; diffusers is told the sizes and the tokenizer."""
    (tmp_path / "tokenizer").mkdir()
    pipe = stable_diffusion(tmp_path / "tokenizer")
    pipe.save_pretrained(tmp_path / "model")
    with monkeypatch.context() as patch:
        path = write(t2i_jax.load(tmp_path / "model"), "SD1", tmp_path, patch)
        ours = t2i_jax.load(path, overrides=["sample.width=32", "sample.height=32"])
    told = dict(config=str(tmp_path / "model"), local_files_only=True, safety_checker=None)
    again = StableDiffusionPipeline.from_single_file(str(path), **told)
    noise = noise_of(32, 32)
    check_pictures(our_pictures(ours, noise), their_pictures(again, noise), "one file")


def test_the_vocabulary_of_the_package(archives):
    """The tokens of a caption as all CLIP programs have them."""
    clip_tokenizer.prepare(archives)
    tokenizer = with_special_tokens(clip_tokenizer.of_package())
    assert tokenizer.get_vocab_size() == clip.TEXT_VARIANTS["ViT-L/14"]["vocab_size"]
    assert tokenizer.encode("a photo of a cat").ids == [49406, 320, 1125, 539, 320, 2368, 49407]
