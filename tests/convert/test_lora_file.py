"""LoRA files: names of both formats, out and in again, and what is refused. See also parity/."""

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from safetensors.numpy import load_file, save_file

from t2i_jax import config as configs
from t2i_jax.convert import lora_file
from t2i_jax.models import sd_unet
from t2i_jax.weights.single_file import original_unet_layer, unet_sources
from tests.conftest import ROOT
from tests.weights.original_names import unet_names

FILES = (lora_file.DIFFUSERS, "kohya.safetensors")


@pytest.fixture(scope="module")
def config():
    """The config of a tiny model, whose layers are listed once."""
    config = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke")
    layers, find = lora_file._layers(config), lora_file._layers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora_file, "_layers", lambda c: layers if c is config else find(c))
        yield config


def factors(inputs, outputs, *sides):
    r = np.random.default_rng(0)
    down, up = r.normal(size=(*sides, inputs, 2)), r.normal(size=(2, outputs))
    return {"kernel": {"down": down.astype(np.float32), "up": up.astype(np.float32)}}


@pytest.fixture(scope="module")
def adapter():
    """Of a linear layer, a 1 x 1 and a 3 x 3 convolution, and a layer of the text encoder."""
    block = {"attention": {"query": factors(32, 32)}}
    net = {
        "conv_in": factors(4, 32, 3, 3),
        "middle_0_transformer": {"project_in": factors(32, 32), "block_0": block},
    }
    text = {"block_1": {"attention": {"value": factors(16, 16)}}}
    return {"params": {"model": {"net": net}}, "text": {"text_encoder": text}}


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_what_was_written(config, adapter, name, tmp_path):
    lora_file.write_lora(adapter, 1.0, config, tmp_path / name)
    found = lora_file.read_lora(tmp_path / name, config)
    assert jax.tree.structure(found) == jax.tree.structure(adapter)
    jax.tree.map(np.testing.assert_array_equal, found, adapter)


def test_names_and_shapes_are_those_of_the_formats(config, adapter, tmp_path):
    expected = (
        {
            "unet.conv_in.lora_A.weight": (2, 4, 3, 3),
            "unet.conv_in.lora_B.weight": (32, 2, 1, 1),
            "unet.mid_block.attentions.0.proj_in.lora_A.weight": (2, 32, 1, 1),
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight": (32, 2),
            "text_encoder.text_model.encoder.layers.1.self_attn.v_proj.lora_A.weight": (2, 16),
        },
        {
            "lora_unet_conv_in.lora_down.weight": (2, 4, 3, 3),
            "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": (32, 2, 1, 1),
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha": (),
            "lora_te_text_model_encoder_layers_1_self_attn_v_proj.lora_down.weight": (2, 16),
        },
    )
    for name, some, per_layer in zip(FILES, expected, (2, 3), strict=True):
        lora_file.write_lora(adapter, 0.5, config, tmp_path / name)
        arrays = load_file(tmp_path / name)
        assert len(arrays) == 4 * per_layer
        assert {key: arrays[key].shape for key in some} == some
        down, up = (arrays[key] for key in arrays if "to_q" in key and key.endswith("weight"))
        ours = adapter["params"]["model"]["net"]["middle_0_transformer"]["block_0"]
        own = ours["attention"]["query"]["kernel"]
        np.testing.assert_allclose(up @ down, 0.5 * (own["down"] @ own["up"]).T, rtol=1e-5)


def test_alpha_over_rank_scales_the_update(config, adapter, tmp_path):
    path = tmp_path / "kohya.safetensors"
    lora_file.write_lora(adapter, 1.0, config, path)
    arrays = load_file(path)
    halved = {k: x / 2 if k.endswith("alpha") else x for k, x in arrays.items()}
    save_file({name: np.asarray(x, np.float16) for name, x in halved.items()}, path)
    found = lora_file.read_lora(path, config)["text"]["text_encoder"]
    kernel = found["block_1"]["attention"]["value"]["kernel"]
    np.testing.assert_allclose(kernel["up"], factors(16, 16)["kernel"]["up"] / 2, rtol=1e-3)


@pytest.mark.parametrize("variant", ["SD1", "SDXL"])
def test_original_names_are_found_from_those_of_diffusers(variant):
    """Kohya's files for Stable Diffusion XL have these."""
    net = sd_unet.UNet2DConditionModel(**sd_unet.VARIANTS[variant])
    names = unet_names(net)
    sources = unet_sources({name: name for name in names})
    assert len(sources) == len(names)
    for new, source in sources.items():
        layer = new.rpartition(".")[0]
        assert original_unet_layer(layer, net) == source.name.rpartition(".")[0]


def test_stable_diffusion_xl_has_two_text_encoders_and_the_original_names():
    overrides = ["model.added_width=12", "model.number_width=4", "model.depths=(1,)"]
    config = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke", overrides)
    towers = config.text.towers.to_dict()
    with config.unlocked():
        config.text.towers = {**towers, "text_encoder_2": towers["text_encoder"]}
    names = {layer.names[1] for layer in lora_file._layers(config)}
    assert "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k" in names
    assert "lora_te2_text_model_encoder_layers_0_mlp_fc1" in names
    assert "lora_te1_text_model_encoder_layers_0_self_attn_out_proj" in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"unet.other.lora_A.weight": np.ones((2, 3))}, r"1 arrays \(unet\.other"),
        (lambda a: a | {"unet.conv_in.dora_scale": np.ones(3)}, r"dora_scale is \[3\], not .* 32"),
        (lambda a: a | {"unet.conv_in.hada_w1_a": np.ones(3)}, "conv_in.hada_w1_a.* none of its"),
        (lambda a: dict(list(a.items())[:1]), "damaged: .* have no counterpart"),
        (
            lambda a: {k: x[:, :3] if "conv_in.lora_A" in k else x for k, x in a.items()},
            r"of another model: unet.conv_in.lora_A.weight is \[2, 3, 3, 3\], not \[2, 4, 3, 3\]",
        ),
        (lambda a: {"x": np.ones(1)}, "is no LoRA of this model"),
    ],
)
def test_a_lora_of_another_model_is_refused_by_name(config, adapter, change, message, tmp_path):
    path = tmp_path / lora_file.DIFFUSERS
    lora_file.write_lora(adapter, 1.0, config, path)
    arrays = {k: np.ascontiguousarray(x) for k, x in change(load_file(path)).items()}
    save_file(arrays, path)
    with pytest.raises(ValueError, match=message):
        lora_file.read_lora(path, config)


def test_a_kernel_without_a_name_in_files_is_refused(config, tmp_path):
    strange = {"params": {"model": {"net": {"other": factors(2, 3)}}}}
    with pytest.raises(ValueError, match="no place for 1 arrays"):
        lora_file.write_lora(strange, 1.0, config, tmp_path / "x.safetensors")


@pytest.mark.parametrize("network", ["sd3_transformer", "flux_transformer"])
def test_layers_of_a_flow_are_those_of_diffusers(network, tmp_path):
    """parity/ compares the pictures. kohya's names of these networks are not known here."""
    config = configs.copy(configs.load(f"{ROOT}/configs/stable_diffusion_3.py:smoke"))
    if network == "flux_transformer":
        config.model = {"network": network, "heads": 2, "joint_depth": 1, "single_depth": 1}
        config.model.axes, config.sample = (4, 6, 6), {}
    layers = {layer.names[0]: layer for layer in lora_file._layers(config)}
    query = layers["transformer.transformer_blocks.0.attn.to_q"]
    assert query.layout == "linear" and query.shape[0] == query.shape[1]
    assert "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" in layers
    down, up = np.ones((query.shape[0], 2), np.float32), np.ones((2, query.shape[1]), np.float32)
    adapter = unflatten_dict({(*query.path, "down"): down, (*query.path, "up"): up})
    lora_file.write_lora(adapter, 1.0, config, tmp_path / lora_file.DIFFUSERS)
    found = lora_file.read_lora(tmp_path / lora_file.DIFFUSERS, config)
    jax.tree.map(np.testing.assert_array_equal, found, adapter)
    with pytest.raises(ValueError, match=f"name the file {lora_file.DIFFUSERS}, not x.safe"):
        lora_file.write_lora(adapter, 1.0, config, tmp_path / "x.safetensors")
