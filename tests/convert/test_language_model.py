"""Published language models: every array gets to its place.

What is missing, unknown or damaged is named.
"""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from t2i_jax.convert import language_model

NAMES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16, "BOOL": np.bool_}
WORDS = ["<end>", "a", "small", "large", "red", "blue", "circle", "star"]
LLAMA = dict(
    model_type="llama",
    vocab_size=9,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    eos_token_id=0,
)
LLAMA |= dict(
    num_key_value_heads=2,
    intermediate_size=12,
    rms_norm_eps=1e-5,
    rope_theta=500.0,
    hidden_act="silu",
)
GPT2 = dict(
    model_type="gpt2", vocab_size=9, n_embd=16, n_layer=2, n_head=4, n_positions=32, eos_token_id=0
)


def arrays_of(config, dtype="F32"):
    """Random arrays under published names."""
    if config["model_type"] == "llama":
        layer = {
            "self_attn.q_proj": (16, 16),
            "self_attn.k_proj": (8, 16),
            "self_attn.v_proj": (8, 16),
        }
        layer |= {
            "self_attn.o_proj": (16, 16),
            "mlp.gate_proj": (12, 16),
            "mlp.up_proj": (12, 16),
            "mlp.down_proj": (16, 12),
        }
        layer |= {"input_layernorm": (16,), "post_attention_layernorm": (16,)}
        shapes = {
            f"model.layers.{i}.{name}.weight": shape
            for i in range(2)
            for name, shape in layer.items()
        }
        shapes |= {
            "model.embed_tokens.weight": (9, 16),
            "model.norm.weight": (16,),
            "lm_head.weight": (9, 16),
        }
    else:
        layer = {
            "attn.c_attn": (16, 48),
            "attn.c_proj": (16, 16),
            "mlp.c_fc": (16, 64),
            "mlp.c_proj": (64, 16),
        }
        layer |= {"ln_1": (16,), "ln_2": (16,)}
        shapes = {
            f"h.{i}.{name}.weight": shape for i in range(2) for name, shape in layer.items()
        } | {"ln_f.weight": (16,)}
        shapes |= {name.replace("weight", "bias"): shape[-1:] for name, shape in shapes.items()}
        shapes |= {"wte.weight": (9, 16), "wpe.weight": (32, 16), "h.0.attn.bias": (1, 1, 4, 4)}
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.normal(0, 0.3, shape).astype(NAMES[dtype]) for name, shape in shapes.items()
    }
    masks = {
        name: np.tri(x.shape[-1], dtype=bool)[None, None]
        for name, x in arrays.items()
        if name.endswith(".attn.bias")
    }
    return {**arrays, **masks}


def write_safetensors(file, arrays):
    """By hand: the library writes no bfloat16 from numpy."""
    header, place = {}, 0
    for name, x in arrays.items():
        kind = next(kind for kind, dtype in NAMES.items() if x.dtype == dtype)
        header[name] = {
            "dtype": kind,
            "shape": x.shape,
            "data_offsets": [place, place := place + x.nbytes],
        }
    text = json.dumps(header).encode()
    file.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in arrays.values())
    )


def publish(folder, config, arrays=None, parts=1):
    """A folder in the published layout."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    arrays = arrays_of(config) if arrays is None else arrays
    if parts == 1:
        write_safetensors(folder / "model.safetensors", arrays)
        return folder
    files = {name: f"model-{i % parts}.safetensors" for i, name in enumerate(arrays)}
    for file in set(files.values()):
        write_safetensors(
            folder / file, {name: x for name, x in arrays.items() if files[name] == file}
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


@pytest.mark.parametrize(("dtype", "parts"), [("F32", 1), ("BF16", 2), ("F16", 3)])
def test_every_array_of_a_llama_gets_to_its_place(tmp_path, dtype, parts):
    arrays = arrays_of(LLAMA, dtype)
    fields, params = language_model.read(publish(tmp_path, LLAMA, arrays, parts))
    assert fields["text"] == {
        "encoder": "language_model",
        "vocab_size": 9,
        "width": 16,
        "positions": 0,
    }
    block = {
        "norm": "rms",
        "epsilon": 1e-5,
        "mlp": "swiglu",
        "hidden": 12,
        "bias": False,
        "rope": 500.0,
    }
    block |= {"kv_heads": 2, "head_dim": 4, "qk_norm": False}
    assert fields["model"] == {
        "width": 16,
        "depth": 2,
        "heads": 4,
        "causal_text": True,
        "block": block,
    }
    layer, at = params["trunk"]["block_1"], "model.layers.1"
    np.testing.assert_array_equal(
        params["text"]["embed"]["embedding"], arrays["model.embed_tokens.weight"]
    )
    np.testing.assert_array_equal(
        layer["attention"]["value"]["kernel"], arrays[f"{at}.self_attn.v_proj.weight"].T
    )
    np.testing.assert_array_equal(
        layer["mlp_gate"]["kernel"], arrays[f"{at}.mlp.gate_proj.weight"].T
    )
    np.testing.assert_array_equal(
        layer["mlp_norm"]["scale"], arrays[f"{at}.post_attention_layernorm.weight"]
    )
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
    # All but lm_head.
    total = sum(x.size for x in arrays.values())
    assert sum(x.size for x in jax.tree.leaves(params)) == total - 9 * 16


def test_every_array_of_a_gpt2_gets_to_its_place(tmp_path):
    arrays = arrays_of(GPT2)
    fields, params = language_model.read(
        publish(tmp_path, GPT2, {f"transformer.{k}": x for k, x in arrays.items()})
    )
    assert fields["text"]["positions"] == 32 and fields["model"]["block"]["mlp"] == "gelu_tanh"
    attention = params["trunk"]["block_1"]["attention"]
    for i, name in enumerate(("query", "key", "value")):
        part = slice(16 * i, 16 * (i + 1))
        np.testing.assert_array_equal(
            attention[name]["kernel"], arrays["h.1.attn.c_attn.weight"][:, part]
        )
        np.testing.assert_array_equal(attention[name]["bias"], arrays["h.1.attn.c_attn.bias"][part])
    np.testing.assert_array_equal(params["text"]["positions"], arrays["wpe.weight"])
    # All but the mask.
    total = sum(x.size for x in arrays.values())
    assert sum(x.size for x in jax.tree.leaves(params)) == total - 16


@pytest.mark.parametrize(("name", "count"), [("SmolLM2-135M", 134_515_008), ("GPT-2", 124_439_808)])
def test_published_sizes(name, count):
    shapes = language_model.shapes(language_model.fields(language_model.VARIANTS[name]))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count
    assert set(language_model.VARIANTS) == {"SmolLM2-135M", "GPT-2"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**LLAMA, "model_type": "bert"},
            "of a 'bert': language models are read in the layouts llama and gpt2",
        ),
        (
            {k: v for k, v in LLAMA.items() if k != "hidden_size"},
            "of a llama and has no hidden_size",
        ),
        ({**LLAMA, "hidden_act": "relu"}, "hidden_act = 'relu': read is 'silu'"),
        (
            {**LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_type = 'yarn': read is 'default'",
        ),
        ({**LLAMA, "mlp_bias": True}, "mlp_bias = True: read is False"),
        (
            {**GPT2, "activation_function": "relu"},
            "activation_function = 'relu': read is 'gelu_new' or",
        ),
        (
            {**GPT2, "scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx = True: read is False",
        ),
    ],
)
def test_architectures_that_are_not_read_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        language_model.fields(config)


def test_theta_of_either_layout_of_config_json():
    newer = {k: v for k, v in LLAMA.items() if k != "rope_theta"}
    newer["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    assert language_model.fields(newer) == language_model.fields({**LLAMA, "rope_scaling": None})


def test_what_is_missing_unknown_or_damaged_is_named(tmp_path):
    arrays = arrays_of(LLAMA)

    def fails(kind, message, change=None, **config):
        changed = dict(arrays)
        changed.update(change or {})
        publish(
            tmp_path, {**LLAMA, **config}, {name: x for name, x in changed.items() if x is not None}
        )
        with pytest.raises(kind, match=message):
            language_model.read(tmp_path)

    name = "model.layers.1.mlp.up_proj.weight"
    more = {"model.layers.1.self_attn.q_norm.weight": np.ones(4, np.float32)}
    fails(
        ValueError,
        r"the llama of its config\.json: layers\.1\.mlp\.up_proj\.weight is missing",
        {name: None},
    )
    fails(ValueError, r"layers\.1\.self_attn\.q_norm\.weight is unknown", more)
    fails(ValueError, r"layers\.1\..* is unknown", num_hidden_layers=1)
    shapes = (
        r"\['mlp_in'\]\['kernel'\] it has one of shape \(16, 11\), "
        r"the network one of shape \(16, 12\)"
    )
    fails(ValueError, shapes, {name: arrays[name][:11]})
    (tmp_path / "model.safetensors").write_bytes(b"not it")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        language_model.read(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no weights in .*: it needs a model\.safetensors, or parts"
    ):
        language_model.read(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../a.safetensors"}}'
    )
    with pytest.raises(
        ValueError, match=r"index\.json names \.\./a\.safetensors, which does not lie beside it"
    ):
        language_model.read(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    with pytest.raises(FileNotFoundError, match=r"no file .*a\.safetensors"):
        language_model.read(tmp_path)


def test_which_folders_are_published_models(tmp_path):
    assert language_model.importer("") is None and language_model.importer(tmp_path) is None
    found = language_model.importer(publish(tmp_path, GPT2))
    assert found is not None and found.what == "a published language model"
    (tmp_path / "run.json").write_text("{}")
    assert language_model.importer(tmp_path) is None


def test_its_tokenizer_ends_a_caption(tmp_path):
    folder = publish(tmp_path, LLAMA)
    made = language_model.tokenizer(folder)
    assert made.encode("a red star").ids == [1, 4, 7, 0] and made.encode("").ids == [0]
    # In a caption, "<", "end" and ">" are unknown words.
    assert made.encode("<end> red").ids == [1, 1, 1, 4, 0]
    # A tokenizer that adds special tokens already is kept as it is.
    made.post_processor = processors.TemplateProcessing("<end> $A", special_tokens=[("<end>", 0)])
    made.save(str(folder / "tokenizer.json"))
    assert language_model.tokenizer(folder).encode("red").ids == [0, 4]


def test_tokenizers_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has a token 7, and config\.json a vocab_size of 7"):
        language_model.tokenizer(publish(tmp_path, {**LLAMA, "vocab_size": 7}))
    with pytest.raises(ValueError, match=r"no end token: config\.json says eos_token_id = 8"):
        language_model.tokenizer(publish(tmp_path, {**LLAMA, "eos_token_id": [8, 9]}))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
        language_model.tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*: it needs a tokenizer\.json"):
        language_model.tokenizer(tmp_path)


def test_the_message_about_a_config_tells_what_would_fit(tmp_path):
    folder = publish(tmp_path, LLAMA)
    fields = language_model.fields(LLAMA)
    language_model.check(folder, ConfigDict(fields))
    fields["model"] |= {
        "heads": 2,
        "block": {k: v for k, v in fields["model"]["block"].items() if k != "rope"},
    }
    del fields["model"]["causal_text"]
    with pytest.raises(ValueError) as error:
        language_model.check(folder, ConfigDict(fields))
    assert str(error.value).splitlines()[1:] == [
        "  model.heads is 2, not 4",
        "  model.causal_text is False, not True",
        "  model.block.rope is 0.0, not 500.0",
    ]
