"""Blocks and converted language models against transformers' Llama and GPT-2, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from t2i_jax.convert import language_model
from t2i_jax.core.text import TextCondition
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.transformer import Transformer
from t2i_jax.text.language_model import Words

LENGTH, VOCAB = 11, 60
LLAMA = dict(
    vocab_size=VOCAB,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=6,
)
LLAMA |= dict(
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    rope_parameters={"rope_type": "default", "rope_theta": 500.0},
)
GPT2 = dict(vocab_size=VOCAB, n_embd=24, n_layer=3, n_head=4, n_positions=20)
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "llama of other sizes": (
        LlamaForCausalLM,
        LlamaConfig(
            **{**LLAMA, "num_key_value_heads": 6}, head_dim=6, attention_bias=True, mlp_bias=True
        ),
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2)),
    "gpt2 of other sizes": (
        GPT2LMHeadModel,
        GPT2Config(**GPT2, n_inner=50, activation_function="gelu", layer_norm_epsilon=1e-3),
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    """(their model, our fields, our parameters), converted from a folder with several parts."""
    torch.manual_seed(0)
    make, config = MODELS[request.param]
    model = make(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too, which start at 0 and 1
            parameter.add_(0.3 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return model, *language_model.read(folder)


@pytest.fixture(scope="module")
def text():
    """(tokens, mask) of four captions, padded on the right."""
    rng = np.random.default_rng(0)
    return rng.integers(0, VOCAB, (4, LENGTH)), np.arange(LENGTH) < np.array(
        [[LENGTH], [1], [7], [4]]
    )


def theirs(model, tokens, mask, end=-1):
    with torch.no_grad():
        out = model(
            torch.tensor(tokens), attention_mask=torch.tensor(mask), output_hidden_states=True
        )
    return out.hidden_states[end].numpy(), out.logits.numpy()


def test_hidden_states_and_logits_agree(both, text):
    model, fields, params = both
    tokens, mask = text
    words = Words(
        fields["text"]["vocab_size"], fields["text"]["width"], fields["text"]["positions"]
    )
    trunk = Transformer(
        fields["model"]["depth"], fields["model"]["heads"], block=fields["model"]["block"]
    )
    sequence = words.apply({"params": params["text"]}, tokens, mask).sequence
    np.testing.assert_allclose(sequence, theirs(model, tokens, mask, 0)[0], atol=1e-6)
    seen = np.tril(np.ones((LENGTH, LENGTH), bool)) & mask[:, None, None, :]
    ours, _ = jax.jit(trunk.apply)({"params": params["trunk"]}, sequence, seen)
    hidden, logits = theirs(model, tokens, mask)
    assert np.abs(hidden[mask]).max() > 1.0 and np.abs(logits[mask]).max() > 1.0
    np.testing.assert_allclose(np.asarray(ours)[mask], hidden[mask], atol=1e-5)
    table = model.lm_head.weight.detach().numpy()
    np.testing.assert_allclose((np.asarray(ours) @ table.T)[mask], logits[mask], atol=2e-5)


def test_the_decoder_reads_a_caption_like_the_language_model(both, text):
    """The trunk's output at the words is the language model's, for any image tokens after them."""
    model, fields, params = both
    tokens, mask = text
    words = Words(
        fields["text"]["vocab_size"], fields["text"]["width"], fields["text"]["positions"]
    )
    condition = TextCondition(
        *words.apply({"params": params["text"]}, tokens, mask)[:2], jnp.asarray(mask)
    )
    decoder, book = PrefixDecoder(codes=9, grid=(2, 3), **fields["model"]), jnp.eye(9, 4)
    codes = jnp.asarray(np.random.default_rng(1).integers(0, 9, (4, 6)), jnp.int32)
    net = {
        **jax.jit(decoder.init)(jax.random.key(0), condition, codes, book)["params"],
        "trunk": params["trunk"],
    }
    _, state = decoder.apply(
        {"params": net},
        condition,
        codes,
        book,
        capture_intermediates=lambda module, _: isinstance(module, Transformer),
    )
    got = np.asarray(state["intermediates"]["trunk"]["__call__"][0][0])[:, :LENGTH]
    np.testing.assert_allclose(got[mask], theirs(model, tokens, mask)[0][mask], atol=1e-5)
