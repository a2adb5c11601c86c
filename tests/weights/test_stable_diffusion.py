"""The formats of Stable Diffusion's networks: fields from config.json, names, what is refused.

That names and shapes are those of diffusers is tested in parity/.
"""

import jax
import numpy as np
import pytest

from t2i_jax.models import autoencoder_kl as vae
from t2i_jax.models import clip, sd_unet
from t2i_jax.weights import autoencoder_kl as vae_weights
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.published import write_arrays

UNET = dict(channels=(8, 16), blocks=1, depths=(0, 2), middle_depth=2, heads=(1, 2), text_width=6)
VAE = dict(latent=3, width=8, multipliers=(1, 2), blocks=1, project=True, scaling=0.5)
TEXT = dict(vocab_size=20, length=8, end=19, width=16, depth=2, heads=2, mlp=64)
UNET_FIELDS, VAE_FIELDS = unet_weights.fields, vae_weights.fields
UNETS = [
    UNET,
    {**UNET, "linear_projection": True, "in_channels": 9},
    {**UNET, "added_width": 13, "number_width": 4},
]
TOWERS = [TEXT, {**TEXT, "projection": 5, "activation": "gelu"}]


@pytest.mark.parametrize("fields", UNETS)
def test_a_unet_read_is_the_one_written(fields):
    net = sd_unet.UNet2DConditionModel(**fields)
    assert sd_unet.UNet2DConditionModel(**unet_weights.fields(unet_weights.config_json(net))) == net
    check_round_trip(
        sd_unet.param_shapes(net),
        unet_weights.published(net),
        lambda arrays: unet_weights.read(arrays, net, "the file"),
    )


@pytest.mark.parametrize("fields", [VAE, {**VAE, "project": False, "shift": 0.25}])
def test_an_autoencoder_read_is_the_one_written(fields):
    net = vae.AutoencoderKL(**fields)
    assert vae.AutoencoderKL(**vae_weights.fields(vae_weights.config_json(net))) == net
    check_round_trip(
        vae.param_shapes(net),
        vae_weights.published(net),
        lambda arrays: vae_weights.read(arrays, net, "the file"),
    )


@pytest.mark.parametrize("fields", TOWERS)
def test_a_text_encoder_read_is_the_one_written(fields):
    tower = clip.TextTower(**fields)
    config = clip_weights.text_config_json(tower)
    assert clip.TextTower(**clip_weights.text_fields(config)) == tower
    arrays = check_round_trip(
        clip.text_param_shapes(tower),
        clip_weights.text_published,
        lambda arrays: clip_weights.read_text(arrays, tower, "the file"),
    )
    # Without the first word, and with a constant of older files.
    short = {name.removeprefix("text_model."): array for name, array in arrays.items()}
    short["embeddings.position_ids"] = np.arange(8)[None]
    clip_weights.read_text(short, tower, "the file")


def check_round_trip(shapes, place, read):
    r = np.random.default_rng(0)
    params = jax.tree.map(lambda a: r.normal(size=a.shape).astype(np.float32), shapes)
    arrays = write_arrays(params, place)
    assert len(arrays) == len(jax.tree.leaves(params))
    jax.tree.map(np.testing.assert_array_equal, read(arrays), params)
    return arrays


def test_names_of_arrays():
    place = unet_weights.published(sd_unet.UNet2DConditionModel(**UNET))
    path = ("up_1_0_transformer", "block_1", "cross_attention", "out", "bias")
    name = "up_blocks.0.attentions.0.transformer_blocks.1.attn2.to_out.0.bias"
    assert place(path) == (name, "same")
    assert place(("down_0", "kernel")) == ("down_blocks.0.downsamplers.0.conv.weight", "conv")
    assert place(("middle_1", "time", "kernel")) == (
        "mid_block.resnets.1.time_emb_proj.weight",
        "linear",
    )
    assert place(("middle_0_transformer", "project_in", "kernel")).layout == "pointwise"


@pytest.mark.parametrize(
    ("fields", "config", "message"),
    [
        (
            unet_weights.fields,
            {"time_embedding_type": "fourier"},
            "time_embedding_type = 'fourier'",
        ),
        (UNET_FIELDS, {"down_block_types": ["AttnDownBlock2D"] * 4}, "AttnDownBlock2D"),
        (
            unet_weights.fields,
            {"up_block_types": ["UpBlock2D"] * 4},
            "up_block_types = .*supported",
        ),
        (UNET_FIELDS, {"addition_embed_type": "image"}, "addition_embed_type = 'image'"),
        (UNET_FIELDS, {"attention_head_dim": [8, 8]}, "attention_head_dim = .* 4 levels"),
        (
            unet_weights.fields,
            {"layers_per_block": [2, 2, 2, 2]},
            "layers_per_block = .* one number",
        ),
        (UNET_FIELDS, {"time_cond_proj_dim": 256}, "time_cond_proj_dim = 256"),
        (
            vae_weights.fields,
            {"down_block_types": ["DownBlock2D"]},
            "an AutoencoderKL .*DownBlock2D",
        ),
        (VAE_FIELDS, {"use_quant_conv": False}, "use_post_quant_conv = True"),
        (VAE_FIELDS, {"norm_num_groups": 16}, "norm_num_groups = 16; supported is 32"),
    ],
)
def test_what_is_not_supported_is_named(fields, config, message):
    types = {"up_block_types": ["UpDecoderBlock2D"], "use_post_quant_conv": True}
    with pytest.raises(ValueError, match=message):
        fields({**(types if fields is VAE_FIELDS else {}), **config})
