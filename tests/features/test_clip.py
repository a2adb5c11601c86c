"""A published CLIP folder: what is read, what is refused, and the resize.

The forward passes are tested in parity/.
"""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from t2i_jax.features import clip, extractor
from t2i_jax.models.clip import CLIP, VARIANTS
from t2i_jax.weights import clip as convert

TEXT = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=8,
)
IMAGE = dict(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=1,
    num_attention_heads=3,
    image_size=8,
    patch_size=4,
)
COLOURS = dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
LOOK = dict(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8}, **COLOURS)
VOCAB = {
    token: i
    for i, token in enumerate(
        [*"abc", *(f"{c}</w>" for c in "abc"), "ab", "<|startoftext|>", "<|endoftext|>"]
    )
}


def _arrays(fields):
    """Random arrays by their published names, of the shapes that the fields ask for."""
    r = np.random.default_rng(0)
    out = {}

    def put(name, *shape):
        out[name] = r.normal(size=shape, scale=0.5).astype(np.float32)

    for at, tower in (("text_model.", fields["text"]), ("vision_model.", fields["image"])):
        width, mlp = tower["width"], tower["mlp"]
        norms = ["final_layer_norm"] if at == "text_model." else ["pre_layrnorm", "post_layernorm"]
        for i in range(tower["depth"]):
            layer = f"encoder.layers.{i}"
            norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
            dense = {f"self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
            for name, shape in (dense | {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}).items():
                put(f"{at}{layer}.{name}.weight", *shape)
                put(f"{at}{layer}.{name}.bias", shape[0])
        for name in norms:
            put(f"{at}{name}.weight", width)
            put(f"{at}{name}.bias", width)
    text, image = fields["text"], fields["image"]
    put("text_model.embeddings.token_embedding.weight", text["vocab_size"], text["width"])
    put("text_model.embeddings.position_embedding.weight", text["length"], text["width"])
    # Older files have this one.
    out["text_model.embeddings.position_ids"] = np.arange(text["length"])[None]
    at, width, patch = "vision_model.embeddings.", image["width"], image["patch"]
    put(f"{at}class_embedding", width)
    put(f"{at}patch_embedding.weight", width, 3, patch, patch)
    put(f"{at}position_embedding.weight", 1 + (image["side"] // patch) ** 2, width)
    put("text_projection.weight", fields["embed"], text["width"])
    put("visual_projection.weight", fields["embed"], image["width"])
    put("logit_scale")
    return out


@pytest.fixture
def folder(tmp_path):
    config = {
        "text_config": {**TEXT, "vocab_size": 9, "eos_token_id": 8},
        "vision_config": IMAGE,
        "projection_dim": 6,
    }
    for name, content in {"config": config, "preprocessor_config": LOOK, "vocab": VOCAB}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    save_file(_arrays(convert.fields(config)), tmp_path / "model.safetensors")
    return tmp_path


def test_sizes_that_config_json_leaves_out_are_those_of_vit_b_32():
    found = convert.fields({"text_config": {}, "vision_config": {}})
    net, known = CLIP(**found), CLIP(**VARIANTS["ViT-B/32"])
    inputs = (
        jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32),
        jax.ShapeDtypeStruct((1, 77), np.int32),
    )
    shapes, known_shapes = (
        jax.eval_shape(n.init, jax.random.key(0), *inputs) for n in (net, known)
    )
    assert shapes == known_shapes and found["text"]["heads"] == known.text["heads"]
    # The oldest files mean this token by 2.
    assert convert.text_fields({"eos_token_id": 2})["end"] == known.text["end"] == 49407


def test_folder(folder):
    made = extractor.load("clip", str(folder))
    assert made.name == "CLIP ViT-24/4-8" and not made.fid
    assert made.rule == (
        "bicubic (antialiased) of the shorter side to 10, centred 8 x 8, "
        "(x / 255 - (0.5, 0.4, 0.3)) / (0.2, 0.3, 0.4)"
    )
    pictures = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3), np.uint8)
    features = jax.jit(made.apply)(made.weights, pictures)["features"]
    assert features.shape == (3, 6) and features.dtype == np.float32
    assert features.std(0).min() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)

    captions = ["ab c", "c", "", "c b a b c a b c a"]
    vectors = made.embed_text(captions)
    assert vectors.shape == (4, 6) and vectors.dtype == np.float32 and vectors.std(0).min() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    more_than_a_batch = made.embed_text(captions * 40)
    np.testing.assert_allclose(more_than_a_batch, np.tile(vectors, (40, 1)), atol=1e-5)
    assert made.embed_text([]).shape == (0, 6)


def test_resize_is_pillows():
    look = clip.Preprocessing(side=20, crop=16, mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))
    r, preprocess = np.random.default_rng(0), jax.jit(clip.preprocess, static_argnums=1)
    for height, width in ((50, 61), (13, 9), (20, 20)):
        pictures = r.integers(0, 256, (2, height, width, 3)).astype(np.uint8)
        found = np.asarray(preprocess(pictures, look)) * 255
        size = (20, 20 * height // width) if width < height else (20 * width // height, 20)
        bicubic = Image.Resampling.BICUBIC
        expected = np.stack(
            [np.asarray(Image.fromarray(p).resize(size, bicubic)) for p in pictures]
        )
        top, left = (expected.shape[1] - 16) // 2, (expected.shape[2] - 16) // 2
        difference = np.abs(found - expected[:, top : top + 16, left : left + 16])
        assert found.shape == (2, 16, 16, 3)
        assert difference.max() < 1.01 and (difference > 0.01).mean() < 0.01
    look = look._replace(mean=(0.5, 0.4, 0.3), deviation=(0.2, 0.3, 0.4))
    light = preprocess(np.full((1, 20, 20, 3), 255, np.uint8), look)
    np.testing.assert_allclose(light[0, 0, 0], [2.5, 2.0, 1.75], rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "model.safetensors", "vocab.json"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"CLIP: no .*{name}.* in .*openai/clip-vit-base-patch32"
    ):
        clip.make(str(folder))


def test_what_is_refused(folder):
    def change(name, **values):
        before = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**before, **values}))
        return before

    def refused(message, name, **values):
        before = change(name, **values)
        with pytest.raises(ValueError, match=message):
            clip.make(str(folder))
        (folder / name).write_text(json.dumps(before))

    text = json.loads((folder / "config.json").read_text())["text_config"]
    refused(
        "captions end with token 8, and config.json says 5",
        "config.json",
        text_config={**text, "eos_token_id": 5},
    )
    refused("hidden_act 'relu'", "config.json", text_config={**text, "hidden_act": "relu"})
    refused(
        "pictures are cut to 8, and the network takes 12",
        "config.json",
        vision_config={**IMAGE, "image_size": 12},
    )
    refused(
        r"16 missing \(vision_model\.encoder\.layers\.1\.",
        "config.json",
        vision_config={**IMAGE, "num_hidden_layers": 2},
    )
    refused(
        r"visual_projection\.weight is \[24, 6\] in our order, the network has \[24, 7\]",
        "config.json",
        projection_dim=7,
    )
    refused(r"bicubic \(resample 3\)", "preprocessor_config.json", resample=2)
    refused(r"bicubic \(resample 3\)", "preprocessor_config.json", do_center_crop=False)
    refused(r"bicubic \(resample 3\)", "preprocessor_config.json", size={"height": 10, "width": 10})
    refused(r"bicubic \(resample 3\)", "preprocessor_config.json", crop_size=11)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        ValueError,
        match=r"config.json is of a 'bert': a CLIP has a text_config and a vision_config",
    ):
        clip.make(str(folder))
