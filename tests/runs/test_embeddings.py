"""Learned embeddings: new tokens with their vectors, in the formats of others; what is refused."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from t2i_jax import config as configs
from t2i_jax.convert.diffusers_parts import run_config
from t2i_jax.runs.embeddings import learned_vectors, with_embeddings, with_new_token
from t2i_jax.text import prompts
from t2i_jax.weights import textual_inversion
from tests.conftest import ROOT
from tests.tiny_stable_diffusion import clip_tokenizer_in, random_towers

TOWER = dict(vocab_size=514, length=16, end=513, width=4, depth=1, heads=1, pad=513)
WIDE = {**TOWER, "width": 6}
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return clip_tokenizer_in(tmp_path_factory.mktemp("tokenizer"))


def model(add, **towers):
    """(config, frozen parts) of these text encoders."""
    smoke = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke", ()).to_dict()
    text = {**smoke["text"], "towers": towers or {"text_encoder": TOWER}, "add": add}
    config = run_config("stable_diffusion", text=text, data=smoke["data"])
    return config, {"text": random_towers(config), "null_text": {}}


def rows_of(found, prompt, tower="text_encoder"):
    """The vectors of a prompt's tokens between the special ones."""
    config, tokenizer, frozen = found
    text, _ = prompts.encode_prompts(tokenizer, [prompt], config.text)
    tokens = text["clip"]["tokens"][0][text["clip"]["mask"][0]]
    return frozen["text"][tower]["embed"]["embedding"][tokens[1:-1]]


def test_a_token_of_several_vectors(tokenizer, tmp_path):
    save_file({"<cat>": VECTORS}, tmp_path / "cat.safetensors")
    config, frozen = model(f"{tmp_path}/cat.safetensors")
    found = with_embeddings(config, tokenizer, frozen)
    plain = frozen["text"]["text_encoder"]["embed"]["embedding"]
    a, of = (tokenizer.encode(word, add_special_tokens=False).ids for word in ("a", "of"))
    expected = np.concatenate([plain[a], VECTORS, plain[of], VECTORS])
    np.testing.assert_array_equal(rows_of(found, "a <cat>of <cat>"), expected)
    assert found[0].text.towers.text_encoder.vocab_size == 517
    # What was given is as before.
    assert config.text.towers.text_encoder.vocab_size == 514 == len(plain)
    assert tokenizer.token_to_id("<cat>") is None
    assert (
        found[1].encode("</s> <|endoftext|>").ids[1:-1]
        == tokenizer.encode("</s> <|endoftext|>").ids[1:-1]
    )


def test_several_files_and_names(tokenizer, tmp_path):
    save_file({"emb_params": VECTORS[:1]}, tmp_path / "style.safetensors")
    save_file({"<cat>": VECTORS[1]}, tmp_path / "cat.safetensors")
    add = f"{tmp_path}/style.safetensors, {tmp_path}/cat.safetensors:<dog>"
    config, frozen = model(add)
    found = with_embeddings(config, tokenizer, frozen)
    np.testing.assert_array_equal(rows_of(found, "<dog> style"), VECTORS[[1, 0]])


def test_two_encoders(tokenizer, tmp_path):
    wide = np.arange(18, dtype=np.float16).reshape(3, 6)
    save_file({"clip_l": VECTORS, "clip_g": wide}, tmp_path / "mine.safetensors")
    config, frozen = model(f"{tmp_path}/mine.safetensors", text_encoder=TOWER, text_encoder_2=WIDE)
    found = with_embeddings(config, tokenizer, frozen)
    np.testing.assert_array_equal(rows_of(found, "mine"), VECTORS)
    np.testing.assert_array_equal(rows_of(found, "mine", "text_encoder_2"), wide)


def test_without_files_nothing_changes(tokenizer):
    config, frozen = model("")
    assert with_embeddings(config, tokenizer, frozen) == (config, tokenizer, frozen)


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("x.safetensors", {"<x>": VECTORS[:, :3]}, "is no embedding for this model: it has"),
        ("x.safetensors", {"clip_l": VECTORS, "clip_g": VECTORS}, "is no embedding for this"),
        ("x.safetensors", {"a</w>": VECTORS}, "'a</w>' is a token of this model already"),
        ("x.pt", {"<x>": VECTORS}, "is a pickle, which could run any code"),
        ("", {}, "there is no file"),
    ],
)
def test_what_is_refused(tokenizer, tmp_path, name, arrays, message):
    if name:
        save_file(arrays, tmp_path / name)
    config, frozen = model(f"{tmp_path}/{name or 'nowhere.safetensors'}")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        with_embeddings(config, tokenizer, frozen)


def test_a_token_that_is_to_be_learned(tokenizer, tmp_path):
    """It starts as a word, and what is learned is added; a file of it is read again."""
    config, frozen = model("", text_encoder=TOWER, text_encoder_2=WIDE)
    config = configs.copy(config)
    config.text.update(learn="<it>", vectors=3, start="ab")
    found, grown = with_new_token(config, tokenizer, frozen)
    plain = frozen["text"]["text_encoder"]["embed"]["embedding"]
    a, b = plain[tokenizer.encode("ab", add_special_tokens=False).ids]
    np.testing.assert_array_equal(rows_of((config, found, grown), "an <it>")[2:], [a, b, a])
    offsets = {"text_encoder": {"learned": VECTORS}}
    offsets["text_encoder_2"] = {"learned": np.zeros((3, 6), np.float32)}
    vectors = learned_vectors(config, {"model": {"text": offsets, "net": {}}}, grown)
    np.testing.assert_allclose(vectors["text_encoder"] - VECTORS, [a, b, a], atol=1e-6)
    textual_inversion.write(tmp_path / "it.safetensors", "<it>", vectors)
    widths = {name: x.shape[1] for name, x in vectors.items()}
    token, again = textual_inversion.read(tmp_path / "it.safetensors", widths)
    assert token == "it"  # the format for two encoders has no name
    for name, x in vectors.items():
        np.testing.assert_array_equal(again[name], x)
    with pytest.raises(ValueError, match="this run learned '<it>' itself"):
        config.text.add = f"{tmp_path}/it.safetensors"
        with_embeddings(config, found, grown)
    with pytest.raises(ValueError, match="if it learned one already, start from the model before"):
        config.text.learn = "<more>"
        with_new_token(config, found, grown)
    with pytest.raises(ValueError, match="start is empty"):
        config.text.start = " "
        with_new_token(config, tokenizer, frozen)
