"""CLIP against transformers' CLIPModel with the same random weights; a whole published folder."""

import json

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from parity.agreement import arrays_of, check_close, check_names, check_written, random_model
from parity.tiny_tokenizer import END, write_tokenizer
from t2i_jax.features import clip as features
from t2i_jax.features import extractor
from t2i_jax.models.clip import CLIP, TEXT_VARIANTS, TextTower, text_param_shapes
from t2i_jax.weights import arrays as weights
from t2i_jax.weights import clip as convert
from t2i_jax.weights.published import write_arrays
from t2i_jax.weights.stored import write_file

TINY_TEXT = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4)
TINY_IMAGE = dict(
    hidden_size=32,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=48,
    patch_size=8,
)
PYTORCH = {"format": "pt"}  # what transformers wants to be written in a file
CAPTIONS = [
    "a large red circle above a small blue square",
    "",
    "It's  the\tSECOND of 2024's 12 cafés — naïve, isn't it?!",
    "they'll've 日本語 text 🦊",
    "a red circle " * 20,  # longer than the text tower
]


def _config(vocab_size, end, act="quick_gelu", text=(), image=()):
    ids = dict(
        vocab_size=vocab_size,
        eos_token_id=end,
        bos_token_id=end - 1 if end > 2 else 0,
        pad_token_id=1,
    )
    text, image = {**ids, "hidden_act": act, **dict(text)}, {"hidden_act": act, **dict(image)}
    return CLIPConfig(
        text_config=text, vision_config=image, projection_dim=24 if text.get("hidden_size") else 512
    )


def _ours(model):
    net = CLIP(**convert.fields(model.config.to_dict()))
    params = convert.read(arrays_of(model), net, "the model")
    check_written(params, convert.published, arrays_of(model))
    return net, params


@pytest.mark.parametrize(
    ("config", "batch"),
    [
        (_config(300, 299, "quick_gelu", TINY_TEXT, TINY_IMAGE), 5),
        (_config(300, 2, "gelu", TINY_TEXT, TINY_IMAGE), 5),  # end token 2: as in the oldest files
        (_config(49408, 49407), 2),  # ViT-B/32
    ],
    ids=["tiny", "tiny-gelu", "ViT-B/32"],
)
def test_both_towers(config, batch):
    model, text = random_model(CLIPModel, config), config.text_config
    net, params = _ours(model)
    r = np.random.default_rng(0)
    side, length = config.vision_config.image_size, text.max_position_embeddings
    pictures = r.normal(size=(batch, side, side, 3)).astype(np.float32)
    tokens = r.integers(3, text.vocab_size - 1, (batch, length))
    ends = r.integers(1, length, batch)
    tokens[np.arange(batch), ends] = text.vocab_size - 1
    tokens[0, ends[0] :] = text.vocab_size - 1  # padded with the end token, as CLIP does
    with torch.no_grad():
        pixel_values = torch.tensor(pictures).permute(0, 3, 1, 2)
        theirs = model(torch.tensor(tokens), pixel_values, output_hidden_states=True)

    def run(params, pictures, tokens):
        def everything(net):
            return net(pictures, tokens), net.image_tower(pictures), net.text_tower(tokens)

        return net.apply({"params": params}, method=everything)

    (image, words, scale), (image_hidden, _), (text_hidden, _) = jax.jit(run)(
        params, pictures, tokens.astype(np.int32)
    )
    check_close(image, theirs.image_embeds, "image vectors")
    check_close(words, theirs.text_embeds, "text vectors")
    np.testing.assert_allclose(scale, model.logit_scale.exp().item(), rtol=1e-6)
    assert len(text_hidden) == text.num_hidden_layers + 1
    assert len(image_hidden) == config.vision_config.num_hidden_layers + 1
    for i, hidden in enumerate(text_hidden[:-1]):
        check_close(hidden, theirs.text_model_output.hidden_states[i], f"text hidden {i}")
    check_close(text_hidden[-1], theirs.text_model_output.last_hidden_state, "text hidden, last")
    for i, hidden in enumerate(image_hidden):
        check_close(hidden, theirs.vision_model_output.hidden_states[i], f"image hidden {i}")


@pytest.mark.parametrize("projects", [False, True], ids=["alone", "with projection"])
def test_a_text_encoder(projects, tmp_path):
    """As in text_encoder/ of Stable Diffusion, and in text_encoder_2/, with projection."""
    config = _config(300, 299, "gelu" if projects else "quick_gelu", TINY_TEXT, TINY_IMAGE)
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel
    config.text_config.projection_dim = 20
    model = random_model(kind, config.text_config)
    model.save_pretrained(tmp_path)
    tower = TextTower(**convert.text_fields(json.loads((tmp_path / "config.json").read_text())))
    params = convert.read_text(weights.read(tmp_path / "model.safetensors"), tower, "the model")
    tokens = np.random.default_rng(0).integers(3, 299, (4, 77))
    tokens[np.arange(4), [5, 76, 30, 1]] = 299
    with torch.no_grad():
        expected = model(torch.tensor(tokens), output_hidden_states=True)
    hidden, pooled = jax.jit(tower.apply)({"params": params}, tokens.astype(np.int32))
    check_close(hidden[-1], expected.last_hidden_state, "hidden, last")
    check_close(hidden[-2], expected.hidden_states[-2], "hidden, last but one")
    check_close(pooled, expected.text_embeds if projects else expected.pooler_output, "pooled")

    # transformers reads what we write, and computes the same.
    folder = tmp_path / "written"
    folder.mkdir()
    write_file(folder / "model.safetensors", write_arrays(params, convert.text_published), PYTORCH)
    (folder / "config.json").write_text(json.dumps(convert.text_config_json(tower)))
    again = kind.from_pretrained(folder).eval()
    for name, array in arrays_of(model).items():
        np.testing.assert_array_equal(arrays_of(again)[name], array, err_msg=name)
    assert convert.text_fields(again.config.to_dict()) == convert.text_fields(
        json.loads((tmp_path / "config.json").read_text())
    )


@pytest.mark.parametrize(
    ("variant", "count"),
    [
        ("ViT-L/14", 123_060_480),
        ("OpenCLIP-ViT-H", 340_387_840),
        ("OpenCLIP-ViT-bigG", 694_659_840),
    ],
)
def test_every_array_of_stable_diffusions_text_encoders_has_a_place(variant, count):
    tower = TextTower(**TEXT_VARIANTS[variant])
    config = CLIPTextConfig(**convert.text_config_json(tower))
    # This class has the names of the published files in every version of transformers.
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config)
    if not tower.projection:
        del model.text_projection
    assert check_names(text_param_shapes(tower), convert.text_published, model) == count


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny CLIP with all files of a published one.

    Returns (folder, model, their tokenizer, their processor).
    """
    folder = tmp_path_factory.mktemp("clip")
    vocab = write_tokenizer(folder, CAPTIONS)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = random_model(
        CLIPModel,
        _config(
            len(vocab),
            vocab[END],
            text={**TINY_TEXT, "max_position_embeddings": 32},
            image=TINY_IMAGE,
        ),
    )
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}
    )
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder, model, tokenizer, processor


def _their_words(model, tokenizer):
    inputs = tokenizer(
        CAPTIONS, padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    with torch.no_grad():
        vectors = model.text_projection(model.text_model(**inputs).pooler_output)
    return inputs["input_ids"].numpy(), vectors / vectors.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    "kind", ["vocab.json, model.safetensors", "tokenizer.json, pytorch_model.bin"]
)
def test_captions(folder, kind, tmp_path):
    folder, model, tokenizer, _ = folder
    ids, vectors = _their_words(model, tokenizer)
    assert len({len(set(row)) for row in ids.tolist()}) > 2  # captions of several lengths
    source = folder
    if kind.startswith("tokenizer.json"):
        tokenizer.save_pretrained(tmp_path)
        for file in folder.iterdir():
            if file.name not in ("vocab.json", "merges.txt", "model.safetensors"):
                (tmp_path / file.name).write_bytes(file.read_bytes())
        # The other kind of published file.
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        source = tmp_path
        assert (source / "tokenizer.json").is_file() and not (source / "vocab.json").is_file()
    ours = features.clip_tokenizer
    np.testing.assert_array_equal(ours.encode(ours.load(source), CAPTIONS, 32), ids)
    found = extractor.load("clip", str(source)).embed_text(CAPTIONS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    check_close(found, vectors)


@pytest.mark.parametrize("size", [(90, 130), (130, 90), (20, 30), (48, 48)])
def test_pictures(folder, size):
    """Resized pictures differ from Pillow's by at most one level, in few pixels.

    The vectors agree.
    """
    folder, model, _, processor = folder
    r = np.random.default_rng(0)
    coarse = r.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    pictures = np.stack(
        [np.asarray(Image.fromarray(c).resize(size[::-1], bicubic)) for c in coarse]
    )
    # Noise, where rounding and clipping matter most.
    pictures[2:] = r.integers(0, 256, pictures[2:].shape)
    inputs = processor(list(pictures), return_tensors="pt")
    with torch.no_grad():
        vectors = model.visual_projection(model.vision_model(**inputs).pooler_output)

    made = extractor.load("clip", str(folder))
    config = json.loads((folder / "preprocessor_config.json").read_text())
    look = features.read_preprocessing(config)
    ready = jax.jit(features.preprocess, static_argnums=1)(pictures, look)
    expected = inputs["pixel_values"].permute(0, 2, 3, 1).numpy()
    levels = np.abs(ready - expected) * 255 * np.array(look.deviation)
    assert levels.max() < 1.01 and (levels > 0.5).mean() < 1e-3
    found = jax.jit(made.apply)(made.weights, pictures)["features"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, vectors / vectors.norm(dim=-1, keepdim=True), atol=1e-4)
