"""Published decoder-only language models (Llama's and GPT-2's layouts) as the start of a run.

A published folder contains config.json, tokenizer.json, and model.safetensors or its parts with
model.safetensors.index.json. Its token embeddings become the parameters of text/language_model.py,
its blocks the trunk of a `PrefixDecoder` with `causal_text`. Its output layer (lm_head) is left
out, because the codes of pictures have an output layer of their own.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer, processors

from t2i_jax.core.importer import Importer
from t2i_jax.core.settings import flatten
from t2i_jax.models.transformer import Block, Transformer
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.completion import LanguageModel, make_model
from t2i_jax.text.language_model import Words
from t2i_jax.weights import arrays as weights
from t2i_jax.weights.config_json import read_json

# The config.json of some published models.
VARIANTS = {
    "SmolLM2-135M": dict(  # arXiv 2502.02737
        model_type="llama",
        vocab_size=49152,
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        rope_theta=100000.0,
        rms_norm_eps=1e-5,
    ),
    "GPT-2": dict(
        model_type="gpt2", vocab_size=50257, n_embd=768, n_layer=12, n_head=12, n_positions=1024
    ),
}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
MLP = {"mlp_gate": "gate_proj", "mlp_in": "up_proj", "mlp_out": "down_proj"}
GELUS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def importer(path) -> Importer | None:
    """Return the importer of the language model in the folder `path`, or None if there is none."""
    folder = Path(path)
    if not (folder / "config.json").is_file() or (folder / "run.json").is_file():
        return None
    return Importer(
        what="a published language model",
        check=functools.partial(check, folder),
        tokenizer=functools.partial(tokenizer, folder),
        start=functools.partial(start, folder),
    )


def read_config(folder) -> dict:
    """Return the config.json of a published folder. Raises FileNotFoundError if there is none."""
    return read_json(Path(folder) / "config.json")


def fields(config: Mapping) -> dict:
    """Return the fields {"text": ..., "model": ...} of a run's config for a published model.

    config: the model's config.json.

    Raises ValueError, naming it, for a field that is missing or has an unsupported value.
    """
    kind = config.get("model_type")
    if kind not in ("llama", "gpt2"):
        raise ValueError(
            f"config.json is of a {kind!r}: language models are read in the layouts llama and gpt2"
        )
    sizes = _llama_sizes(config) if kind == "llama" else _gpt2_sizes(config)
    vocab_size, width, depth, heads, positions, block = sizes
    return {
        "text": {
            "encoder": "language_model",
            "vocab_size": vocab_size,
            "width": width,
            "positions": positions,
        },
        "model": {
            "width": width,
            "depth": depth,
            "heads": heads,
            "causal_text": True,
            "block": {**block, "qk_norm": False},
        },
    }


def _llama_sizes(config):
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
    )
    vocab_size, width, depth, heads, hidden = _required(config, names)
    rope = {"rope_theta": config.get("rope_theta", 10000.0)}
    rope |= {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    bias = config.get("attention_bias", False)
    _refuse(config, "hidden_act", ["silu"])
    _refuse(config, "mlp_bias", [bias])
    _refuse(rope, "type", ["default"])
    _refuse(rope, "rope_type", ["default"])
    _refuse(rope, "partial_rotary_factor", [1.0])
    block = {
        "norm": "rms",
        "epsilon": float(config.get("rms_norm_eps", 1e-6)),
        "mlp": "swiglu",
        "hidden": hidden,
        "bias": bias,
        "rope": float(rope["rope_theta"]),
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or width // heads,
    }
    return vocab_size, width, depth, heads, 0, block


def _gpt2_sizes(config):
    vocab_size, width, depth, heads, positions = _required(
        config, ("vocab_size", "n_embd", "n_layer", "n_head", "n_positions")
    )
    _refuse(config, "activation_function", list(GELUS))
    _refuse(config, "scale_attn_weights", [True])
    _refuse(config, "scale_attn_by_inverse_layer_idx", [False])
    _refuse(config, "add_cross_attention", [False])
    block = {
        "norm": "layer",
        "epsilon": float(config.get("layer_norm_epsilon", 1e-5)),
        "mlp": GELUS[config.get("activation_function", "gelu_new")],
        "hidden": config.get("n_inner") or 4 * width,
        "bias": True,
        "rope": 0.0,
        "kv_heads": heads,
        "head_dim": width // heads,
    }
    return vocab_size, width, depth, heads, positions, block


def _required(config, names):
    if missing := [name for name in names if name not in config]:
        raise ValueError(f"config.json is of a {config['model_type']} and has no {missing[0]}")
    return [config[name] for name in names]


def _refuse(config, name, known):
    """Raise ValueError if `config` has a value for `name` that is not one of `known`."""
    if name in config and config[name] not in known:
        raise ValueError(
            f"config.json has {name} = {config[name]!r}: read is {' or '.join(map(repr, known))}"
        )


def shapes(fields: Mapping) -> Any:
    """Return the parameters {"text", "trunk"} of an architecture as shapes. Computes nothing.

    fields: as the function `fields` returns them.
    """
    text, model = ({**fields[name]} for name in ("text", "model"))
    words = Words(text["vocab_size"], text["width"], text["positions"])
    trunk = Transformer(model["depth"], model["heads"], block=model["block"])

    def init(rng):
        tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
        condition, variables = words.init_with_output(rng, tokens, mask)
        return {
            "text": variables["params"],
            "trunk": trunk.init(rng, condition.sequence, mask)["params"],
        }

    return jax.eval_shape(init, jax.random.key(0))


def read(folder) -> tuple[dict, Any]:
    """Return (fields, parameters {"text", "trunk"} as float32) of a published folder.

    Raises FileNotFoundError for a missing file. Raises ValueError for a damaged file, for an
    architecture that is not supported (see `fields`), and, naming it, for an array that is missing,
    unknown or of another shape than config.json describes.
    """
    folder = Path(folder)
    return from_arrays(read_config(folder), _arrays(folder), str(folder))


def from_arrays(config: Mapping, arrays: Mapping[str, np.ndarray], source: str) -> tuple[dict, Any]:
    """Return what `read` returns, of a config.json and of arrays by their published names.

    source: where they come from, for messages.
    """
    known, what = fields(config), f"the {config['model_type']} of its config.json"
    # Names may start with the module beside the output layer.
    left = {
        name.removeprefix("model.").removeprefix("transformer."): array
        for name, array in arrays.items()
    }

    def take(name):
        if name not in left:
            raise ValueError(f"{source} does not hold {what}: {name} is missing")
        return left.pop(name)

    params = (_llama if config["model_type"] == "llama" else _gpt2)(take, known["model"])
    # Masks and angles that are computed here, and the output layer.
    unused = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq", "lm_head.weight")
    if unknown := [name for name in left if not name.endswith(unused)]:
        raise ValueError(f"{source} does not hold {what}: {min(unknown)} is unknown")
    return known, weights.match_network(params, shapes(known), source)


def load(folder) -> LanguageModel:
    """Return the model of a published folder, to write with.

    Raises what `read` and `tokenizer` raise, and ValueError for a model with learned positions, or
    with an output layer that is not its table of embeddings.
    """
    config = read_config(folder)
    if config.get("model_type") != "llama" or not config.get("tie_word_embeddings", False):
        raise ValueError(
            f"{folder} cannot write: its config.json has model_type {config.get('model_type')!r} "
            f"and tie_word_embeddings {config.get('tie_word_embeddings', False)!r}, where writing "
            "needs 'llama' and True"
        )
    return make_model(Path(folder).resolve().name, tokenizer(folder), *read(folder))


def _llama(take: Callable, model: Mapping) -> dict:
    def dense(name):
        bias = {"bias": take(f"{name}.bias")} if model["block"]["bias"] else {}
        return {"kernel": take(f"{name}.weight").T, **bias}

    def norm(name):
        return {"scale": take(f"{name}.weight")}

    def block(at):
        return {
            "attention_norm": norm(f"{at}.input_layernorm"),
            "attention": {
                ours: dense(f"{at}.self_attn.{theirs}") for ours, theirs in ATTENTION.items()
            },
            "mlp_norm": norm(f"{at}.post_attention_layernorm"),
            **{ours: dense(f"{at}.mlp.{theirs}") for ours, theirs in MLP.items()},
        }

    blocks = {f"block_{i}": block(f"layers.{i}") for i in range(model["depth"])}
    return {
        "text": {"embed": {"embedding": take("embed_tokens.weight")}},
        "trunk": {**blocks, "norm": norm("norm")},
    }


def _gpt2(take: Callable, model: Mapping) -> dict:
    width = model["width"]

    def dense(name):  # kernels are [in, out], as here
        return {"kernel": take(f"{name}.weight"), "bias": take(f"{name}.bias")}

    def norm(name):
        return {"scale": take(f"{name}.weight"), "bias": take(f"{name}.bias")}

    def block(at):
        fused = dense(f"{at}.attn.c_attn")

        def part(columns):
            return {name: array[..., columns] for name, array in fused.items()}

        attention = {
            "query": part(slice(width)),
            "key": part(slice(width, 2 * width)),
            "value": part(slice(2 * width, None)),
        }
        return {
            "attention_norm": norm(f"{at}.ln_1"),
            "attention": {**attention, "out": dense(f"{at}.attn.c_proj")},
            "mlp_norm": norm(f"{at}.ln_2"),
            "mlp_in": dense(f"{at}.mlp.c_fc"),
            "mlp_out": dense(f"{at}.mlp.c_proj"),
        }

    blocks = {f"block_{i}": block(f"h.{i}") for i in range(model["depth"])}
    text = {"embed": {"embedding": take("wte.weight")}, "positions": take("wpe.weight")}
    return {"text": text, "trunk": {**blocks, "norm": norm("ln_f")}}


def tokenizer(folder) -> Tokenizer:
    """Return the tokenizer of a published folder.

    If it adds no special tokens to a caption, it gets a rule that appends its end token.

    Raises FileNotFoundError if there is no tokenizer.json, ValueError if that is damaged or does
    not fit config.json.
    """
    file, config = Path(folder) / "tokenizer.json", read_config(folder)
    if not file.is_file():
        raise FileNotFoundError(f"no tokenizer in {folder}: it needs a tokenizer.json")
    try:
        loaded = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no other kind
        raise ValueError(f"{file} is not a tokenizer: {error}") from None
    highest, rows = max(loaded.get_vocab().values()), fields(config)["text"]["vocab_size"]
    if highest >= rows:
        raise ValueError(f"{file} has a token {highest}, and config.json a vocab_size of {rows}")
    if not loaded.num_special_tokens_to_add(False):
        end = config.get("eos_token_id")
        end = end[0] if isinstance(end, list) else end
        word = None if end is None else loaded.id_to_token(end)
        if word is None:
            raise ValueError(f"{file} has no end token: config.json says eos_token_id = {end}")
        loaded.post_processor = processors.TemplateProcessing(
            f"$A {word}", special_tokens=[(word, end)]
        )
    return tokenizers.standardise(loaded)


def check(folder, config) -> None:
    """Raise ValueError for fields of a run's `config` that do not fit the model in `folder`.

    The message tells what each should be.
    """
    defaults = {f"model.block.{field.name}": field.default for field in dataclasses.fields(Block)}
    have = {
        "model.causal_text": False,
        **defaults,
        **flatten({"text": config.text, "model": config.model}),
    }
    wanted = flatten(fields(read_config(folder)))
    wrong = [
        f"{name} is {have.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if have.get(name) != value
    ]
    if wrong:
        raise ValueError(
            f"this config does not fit the language model of init_from = {folder}:\n  "
            + "\n  ".join(wrong)
        )


def start(folder, config, params) -> Any:
    """Return `params` with the token embeddings and the trunk of the model in `folder`.

    params: those of families/autoregressive.py for `config`. What only pictures need stays as it
        is: the input embeddings and the output layer of the codes.

    Raises the errors of `check` and `read`.
    """
    check(folder, config)
    _, published = read(folder)
    model = params["model"]
    return {
        **params,
        "model": {
            **model,
            "text": published["text"],
            "net": {**model["net"], "trunk": published["trunk"]},
        },
    }


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a published folder by name, of one file or of several parts."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if not whole.is_file() and not index.is_file():
        raise FileNotFoundError(
            f"no weights in {folder}: it needs a model.safetensors, or parts of it and {index.name}"
        )
    names = [whole.name]
    if not whole.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{index} names {outside[0]}, which does not lie beside it")
    return {name: array for part in names for name, array in weights.read(folder / part).items()}
