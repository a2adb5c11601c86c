"""Whole files with original names, of tiny networks: each array gets to its place.

The names are compared with diffusers' conversion in parity/.
"""

import jax
import numpy as np
import pytest

from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.weights import single_file
from tests.weights.original_names import original_arrays

UNET = dict(channels=(8, 16), blocks=2, depths=(1, 0), middle_depth=1, heads=(1, 2), text_width=6)
UNETS = {
    "SD1": UNET,
    "SD2": {**UNET, "linear_projection": True},
    "SDXL": {**UNET, "depths": (0, 2), "added_width": 13, "number_width": 4},
    "SDXL-refiner": {**UNET, "channels": (8, 8, 16), "depths": (0, 1, 0), "heads": (1, 1, 1)},
}
VAE = dict(latent=4, width=8, multipliers=(1, 2, 2), blocks=1, project=True)
TEXT = dict(vocab_size=20, length=8, end=19, width=16, depth=2, heads=2)
TOWERS = {
    "ViT-L/14": TEXT,
    "OpenCLIP-ViT-H": TEXT,
    "OpenCLIP-ViT-bigG": {**TEXT, "projection": 16},
}
REST = ["alphas_cumprod", "sqrt_alphas_cumprod", "model_ema.decay", "first_stage_model.loss.logvar"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(sd_unet, "VARIANTS", UNETS)
    monkeypatch.setattr(autoencoder_kl, "VARIANTS", {"SD": VAE, "SDXL": VAE})
    monkeypatch.setattr(clip, "TEXT_VARIANTS", TOWERS)
    monkeypatch.setattr(single_file, "SD2_BLOCKS", TEXT["depth"])


def random_like(shapes, seed):
    r = np.random.default_rng(seed)
    return jax.tree.map(lambda a: r.normal(size=a.shape).astype(np.float32), shapes)


def original_file(variant, in_channels=4):
    """Return (arrays with original names, {part: our parameters})."""
    unet = sd_unet.UNet2DConditionModel(**{**UNETS[variant], "in_channels": in_channels})
    vae = autoencoder_kl.AutoencoderKL(**VAE)
    params = {
        "unet": random_like(sd_unet.param_shapes(unet), 0),
        "vae": random_like(autoencoder_kl.param_shapes(vae), 1),
    }
    nets = {"unet": unet, "vae": vae}
    for i, (name, (tower, _)) in enumerate(single_file.ENCODERS[variant].items()):
        nets[name] = clip.TextTower(**TOWERS[tower])
        params[name] = random_like(clip.text_param_shapes(nets[name]), 2 + i)
    rest = {name: np.ones(2) for name in REST}
    return {**rest, **original_arrays(variant, nets, params)}, params


@pytest.mark.parametrize("variant", UNETS)
def test_each_array_gets_to_its_place(variant):
    arrays, params = original_file(variant)
    if variant == "SD2":  # what no network uses
        arrays["cond_stage_model.model.text_projection"] = np.ones((16, 16))
        arrays["cond_stage_model.model.transformer.resblocks.2.ln_1.weight"] = np.ones(16)
    parts = single_file.parts(arrays, "the file")
    assert set(parts) == set(params)
    for name, part in parts.items():
        found = part.read(part.arrays, part.net, "the file")
        jax.tree.map(np.testing.assert_array_equal, found, params[name])


def test_an_inpainting_unet_has_nine_channels():
    arrays, _ = original_file("SD1", in_channels=9)
    assert single_file.parts(arrays, "the file")["unet"].net.in_channels == 9


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.input_blocks.1.0.more.weight",
        "first_stage_model.encoder.mid.attn_1.more.weight",
        "cond_stage_model.model.visual.proj",
        "control_model.input_hint_block.0.weight",
        "edm_mean",
    ],
)
def test_what_no_network_uses_is_named(name):
    arrays, _ = original_file("SD2")
    with pytest.raises(ValueError, match=f"the file has 1 arrays that no network .* uses: {name}"):
        single_file.parts({**arrays, name: np.ones(2)}, "the file")


def test_a_missing_array_is_named():
    arrays, _ = original_file("SD1")
    del arrays["model.diffusion_model.out.2.bias"]
    part = single_file.parts(arrays, "the file")["unet"]
    with pytest.raises(ValueError, match=r"1 missing \(conv_out.bias\)"):
        part.read(part.arrays, part.net, "the file")


def test_another_file_is_refused():
    arrays, _ = original_file("SD1")
    arrays = {name: a for name, a in arrays.items() if not name.startswith("first_stage_model.")}
    with pytest.raises(ValueError, match="the file is no whole Stable Diffusion 1, 2 or XL"):
        single_file.parts(arrays, "the file")
