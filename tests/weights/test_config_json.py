"""Fields of networks from config.json: published values, defaults, and what is refused."""

import pytest

from t2i_jax.weights import flux_transformer, sd3_transformer, t5

T5 = dict(model_type="t5", feed_forward_proj="gated-gelu", d_model=4096, num_heads=64, d_ff=10240)
SD3 = dict(num_layers=24, num_attention_heads=24, caption_projection_dim=1536)
SD3 |= dict(_class_name="SD3Transformer2DModel", pos_embed_max_size=192, sample_size=128)


def test_published_fields():
    assert t5.fields({**T5, "num_layers": 24, "dropout_rate": 0.1})["width"] == 4096
    assert sd3_transformer.fields(SD3) == {
        "depth": 24,
        "heads": 24,
        "head_dim": 64,
        "patch": 2,
        "grid": 64,
        "max_grid": 192,
        "qk_norm": False,
        "dual": (),
    }
    assert flux_transformer.fields({"guidance_embeds": True, "axes_dims_rope": [16, 56, 56]}) == {
        "guidance": True,
        "joint_depth": 19,
        "single_depth": 38,
        "heads": 24,
        "axes": (16, 56, 56),
    }


@pytest.mark.parametrize(
    ("weights", "config", "message"),
    [
        (t5, {**T5, "feed_forward_proj": "relu"}, "feed_forward_proj 'relu'.*'gated-gelu'"),
        (t5, {"model_type": "t5"}, "feed_forward_proj 'relu'"),
        (t5, {**T5, "model_type": "umt5"}, "model_type 'umt5'.*'t5'"),
        (sd3_transformer, {**SD3, "qk_norm": "layer_norm"}, "qk_norm 'layer_norm'.*'rms_norm'"),
        (sd3_transformer, {**SD3, "out_channels": 32}, "out_channels 32.* 16"),
        (sd3_transformer, {**SD3, "caption_projection_dim": 9}, "caption_projection_dim 9.* 1536"),
        (sd3_transformer, {**SD3, "pos_embed_max_size": None}, "no pos_embed_max_size"),
        (sd3_transformer, {**SD3, "quantization_config": 1}, "quantization_config 1"),
        (flux_transformer, {"in_channels": 384, "out_channels": 64}, "out_channels 64"),
        (flux_transformer, {"in_channels": 6}, "in_channels 6: .* multiple of 4"),
        (flux_transformer, {"patch_size": 2}, "patch_size 2; only 1"),
        (flux_transformer, {"axes_dims_rope": [16, 56]}, r"axes_dims_rope \(16, 56\).* 128"),
    ],
)
def test_what_is_not_supported_is_named(weights, config, message):
    with pytest.raises(ValueError, match=message):
        weights.fields(config)
