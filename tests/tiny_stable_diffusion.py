"""A tiny Stable Diffusion with random weights, in memory; no network of it has learned anything."""

import json
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer, models, processors

from t2i_jax import config as configs
from t2i_jax.convert.diffusers_parts import read_tokenizer
from t2i_jax.core.importer import Imported
from t2i_jax.families import flow_transformer
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.text import clip_tokenizer
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.clip import make_tower
from t2i_jax.text.clip_t5 import T5, make_t5
from t2i_jax.text.joint_tokenizer import JointTokenizer
from tests.conftest import ROOT


def random_params(shapes: Any, seed: int) -> Any:
    """Parameters of these shapes, float32; products are about one in size."""
    r = np.random.default_rng(seed)

    def draw(path, shape):
        start = 1.0 if path[-1].key == "scale" else 0.0
        size = 0.1 if len(shape.shape) < 2 else np.prod(shape.shape[:-1]) ** -0.5
        return (start + size * r.normal(size=shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def clip_tokenizer_in(folder):
    """A tokenizer of letters in the files of CLIP's, which are written to the folder."""
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    words = [*letters, *(f"{c}</w>" for c in letters), clip_tokenizer.START, clip_tokenizer.END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return read_tokenizer(folder)


def make_model(folder, *overrides: str) -> Imported:
    """The model of configs/stable_diffusion.py:smoke. folder: for the files of its tokenizer."""
    config = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke", overrides)
    tokenizer = clip_tokenizer_in(folder)
    net, text = make_net(config), random_towers(config)
    params = random_params(sd_unet.param_shapes(net), 0)
    return imported(config, params, text, tokenizer)


def make_flow_model(folder, *overrides: str) -> Imported:
    """The model of configs/stable_diffusion_3.py:smoke. folder: as above."""
    config = configs.load(f"{ROOT}/configs/stable_diffusion_3.py:smoke", overrides)
    pieces = [(piece, -1.0) for piece in ("<pad>", "</s>", "<unk>", *map(chr, range(33, 127)))]
    of_t5 = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    of_t5.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    length = config.text.towers["text_encoder"]["length"]
    tokenizer = JointTokenizer(
        [tokenizers.standardise(part) for part in (clip_tokenizer_in(folder), of_t5)], [length]
    )
    t5 = make_t5(config.text.t5)
    shapes = jax.eval_shape(t5.init, jax.random.key(0), np.zeros((1, 2), np.int32))["params"]
    text = {**random_towers(config), T5: random_params(shapes, 9)}
    denoiser = flow_transformer.make_denoiser(config, 8, 8)
    tokens = {"tokens": np.zeros((1, config.text.length), np.int32)}
    batch = {"text": {"clip_t5": tokens}}
    net = jax.eval_shape(lambda: denoiser.init(jax.random.key(0), batch))["net"]
    return imported(config, random_params(net, 0), text, tokenizer)


def random_towers(config) -> dict[str, Any]:
    towers = {name: make_tower(fields)[0] for name, fields in config.text.towers.items()}
    return {
        name: random_params(clip.text_param_shapes(tower), i)
        for i, (name, tower) in enumerate(towers.items(), 2)
    }


def imported(config, net, text, tokenizer) -> Imported:
    null, _ = tokenizers.encode(tokenizer, [""], config.text.length)
    vae = make_autoencoder(config)
    frozen = {
        "first_stage": random_params(autoencoder_kl.param_shapes(vae), 1),
        "text": text,
        "null_text": {config.text.encoder: {name: x[0] for name, x in null.items()}},
    }
    return Imported(config, {"model": {"text": {}, "net": net}}, frozen, tokenizer)
