"""A GGUF file is the same model as the published folder that it was made of."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.convert import language_model, smollm2
from t2i_jax.models.attention import rotate
from t2i_jax.text import completion
from tests import gguf_file
from tests.convert.test_language_model import LLAMA, arrays_of, publish

METADATA = {
    "general.architecture": "llama",
    "llama.embedding_length": 16,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.feed_forward_length": 12,
    "llama.rope.freq_base": 500.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["<end>", "a", "b", "c", "1", "2", "Ġ", "ab", "Ġab"],
    "tokenizer.ggml.merges": ["a b", "Ġ ab"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1, 1, 1],
}
THEIRS = {ours: theirs for theirs, ours in smollm2.LAYERS.items()}


def neighbours(kernel, heads):
    """Put channels i and i + half of each head beside each other, as llama.cpp stores them."""
    halves = kernel.reshape(heads, 2, kernel.shape[0] // heads // 2, kernel.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(kernel.shape)


def gguf_of(arrays) -> dict:
    """The arrays of a published folder as a GGUF file names and stores them."""
    found = {
        "token_embd.weight": arrays["model.embed_tokens.weight"],
        "output_norm.weight": arrays["model.norm.weight"],
    }
    for i in range(2):
        for layer, name in THEIRS.items():
            x = arrays[f"model.layers.{i}.{layer}.weight"]
            heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(layer)
            found[f"blk.{i}.{name}.weight"] = neighbours(x, heads) if heads else x
    return found


def test_the_same_model_as_the_published_folder(tmp_path):
    arrays = arrays_of(LLAMA)
    model = smollm2.from_gguf(gguf_file.content(METADATA, gguf_of(arrays)), "tiny")
    config = {**LLAMA, "tie_word_embeddings": True}
    other = language_model.load(publish(tmp_path / "published", config, arrays))
    assert other.name == "published" and model.name == "tiny"
    other = other._replace(tokenizer=model.tokenizer)
    texts = [" ab", "1c", "cab2"]
    found = [
        completion.next_log_probs(each, completion.start(each, "abc", 8), texts)
        for each in (model, other)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert np.ptp(found[0]) > 0.1


def test_rotating_neighbours_or_halves_gives_the_same_products():
    """llama.cpp rotates channels 2i and 2i + 1; here they are i and i + half."""
    rng = np.random.default_rng(0)
    kernels, x = rng.normal(size=(2, 8, 5)), rng.normal(size=(2, 5))
    products = []
    for apart in (False, True):
        rotated = []
        for kernel, vector, position in zip(kernels, x, (3, 7), strict=True):
            if apart:
                y = smollm2.half_apart(kernel, 1) @ vector
                turned = rotate(jnp.asarray(y, jnp.float32)[None, None, None], position, 100.0)
                rotated.append(np.asarray(turned).ravel())
            else:
                y = (kernel @ vector).reshape(4, 2)
                angles = position * 100.0 ** (-np.arange(4) / 4)
                turned = (y[:, 0] + 1j * y[:, 1]) * np.exp(1j * angles)
                rotated.append(np.stack([turned.real, turned.imag], axis=1).ravel())
        products.append(rotated[0] @ rotated[1])
    assert products[0] == pytest.approx(products[1], abs=1e-4)


def test_its_tokenizer():
    tokenizer = smollm2.tokenizer_of(METADATA)
    tokens = tokenizer.encode("ab ab12<end>", add_special_tokens=False).tokens
    assert tokens == ["ab", "Ġab", "1", "2", "<end>"]
    assert tokenizer.decode([7, 8, 4]) == "ab ab1"


@pytest.mark.parametrize(
    ("metadata", "arrays", "message"),
    [
        ({"general.architecture": "qwen2"}, {}, "layout 'qwen2'"),
        ({}, {"output.weight": np.zeros((9, 16), np.float32)}, "output layer of its own"),
        ({}, {"blk.0.attn_q.bias": np.zeros(16, np.float32)}, "q_proj.bias is unknown"),
        ({"llama.block_count": 3}, {}, "layers.2"),
    ],
)
def test_other_models_are_refused(metadata, arrays, message):
    content = gguf_file.content({**METADATA, **metadata}, {**gguf_of(arrays_of(LLAMA)), **arrays})
    with pytest.raises(ValueError, match=message):
        smollm2.from_gguf(content, "tiny")


def test_a_folder_that_cannot_write_is_refused(tmp_path):
    folder = publish(tmp_path, LLAMA)
    with pytest.raises(ValueError, match="tie_word_embeddings"):
        language_model.load(folder)
    (folder / "config.json").write_text(json.dumps({**LLAMA, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="'gpt2'"):
        language_model.load(folder)


def test_before_prepare(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="--weights=smollm2"):
        smollm2.load()
