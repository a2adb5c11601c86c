"""The U-Net against diffusers' UNet2DConditionModel with the same random weights."""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel as Theirs

from parity.agreement import arrays_of, check_close, check_names, check_written, random_model
from t2i_jax.core.text import TextCondition
from t2i_jax.models.sd_unet import VARIANTS, UNet2DConditionModel, param_shapes
from t2i_jax.weights import sd_unet as weights

ATTENTION = ["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"]
PLAIN = ["DownBlock2D", "UpBlock2D"]
TINY = dict(
    # With 32 channels, norms would have groups of one channel, and remove the time.
    block_out_channels=[64, 96],
    down_block_types=[ATTENTION[0], PLAIN[0]],
    up_block_types=[PLAIN[1], ATTENTION[1]],
    layers_per_block=2,
    cross_attention_dim=24,
    attention_head_dim=4,
)
SDXL = dict(
    block_out_channels=[64, 64, 96],
    down_block_types=[PLAIN[0], ATTENTION[0], ATTENTION[0]],
    up_block_types=[ATTENTION[1], ATTENTION[1], PLAIN[1]],
    transformer_layers_per_block=[1, 2, 3],
    attention_head_dim=[1, 2, 3],
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=20 + 6 * 8,
)
CONFIGS = {
    "SD1": {},
    "SD1-inpainting": dict(in_channels=9, layers_per_block=1),
    "SD2": dict(use_linear_projection=True, attention_head_dim=[2, 4], upcast_attention=True),
    "SDXL": TINY | SDXL,
}


def inputs(net, batch=3, side=8):
    r, numbers = np.random.default_rng(0), 6

    def normal(*shape):
        return r.normal(size=shape).astype(np.float32)

    x = normal(batch, side, side // 2 * 3, net.in_channels)
    timesteps = np.array([999, 0, 421][:batch], np.int64)
    pooled = normal(batch, max(net.added_width - numbers * net.number_width, 1))
    vector = r.integers(0, 1024, (batch, numbers)).astype(np.float32)
    sequence = normal(batch, 7, net.text_width)
    mask = np.arange(7) < np.array([7, 2, 4])[:batch, None]  # has no influence
    return x, timesteps, TextCondition(sequence, pooled, mask, vector)


@pytest.mark.parametrize(
    ("name", "side"), [*((name, 8) for name in CONFIGS), ("SD1", 7), ("SDXL", 6)]
)
def test_prediction(name, side):
    model = random_model(Theirs, **(TINY | CONFIGS[name]))
    net = UNet2DConditionModel(**weights.fields(json.loads(model.to_json_string())))
    params = weights.read(arrays_of(model), net, "the model")
    x, timesteps, text = inputs(net, side=side)
    with torch.no_grad():
        expected = model(
            torch.tensor(x).permute(0, 3, 1, 2),
            torch.tensor(timesteps),
            torch.tensor(text.sequence),
            added_cond_kwargs={
                "text_embeds": torch.tensor(text.pooled),
                "time_ids": torch.tensor(text.vector),
            },
        ).sample
    t = ((timesteps + 1) / 1000).astype(np.float32)
    found = jax.jit(net.apply)({"params": params}, x, t, text)
    check_close(found, expected.permute(0, 2, 3, 1))
    check_written(params, weights.published(net), arrays_of(model))


@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_builds_the_same_network_from_our_config(name):
    model = Theirs(**(TINY | CONFIGS[name]))
    net = UNet2DConditionModel(**weights.fields(dict(model.config)))
    again = Theirs.from_config(weights.config_json(net))
    again.load_state_dict(model.state_dict())
    assert weights.fields(dict(again.config)) == weights.fields(dict(model.config))


COUNTS = {
    "SD1": 859_520_964,
    "SD1-inpainting": 859_535_364,
    "SD2": 865_910_724,
    "SD2-inpainting": 865_925_124,
    "SDXL": 2_567_463_684,
    "SDXL-refiner": 2_259_526_660,
}
INPAINTING = {"in_channels": 9}
SD2 = dict(attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True)
PUBLISHED = {
    "SD1": dict(cross_attention_dim=768),
    "SD1-inpainting": dict(cross_attention_dim=768, **INPAINTING),
    "SD2": SD2,
    "SD2-inpainting": SD2 | INPAINTING,
    "SDXL": SDXL
    | dict(
        block_out_channels=[320, 640, 1280],
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
    "SDXL-refiner": SDXL
    | dict(
        block_out_channels=[384, 768, 1536, 1536],
        down_block_types=[PLAIN[0], ATTENTION[0], ATTENTION[0], PLAIN[0]],
        up_block_types=[PLAIN[1], ATTENTION[1], ATTENTION[1], PLAIN[1]],
        transformer_layers_per_block=4,
        attention_head_dim=[6, 12, 24, 24],
        cross_attention_dim=1280,
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2560,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_published_array_has_a_place(name):
    """Names and shapes are those that diffusers builds from the published config."""
    with torch.device("meta"):
        model = Theirs(**PUBLISHED[name])
    net = UNet2DConditionModel(**VARIANTS[name])
    assert net == UNet2DConditionModel(**weights.fields(dict(model.config)))
    count = check_names(param_shapes(net), weights.published(net), model)
    assert count == COUNTS[name]
