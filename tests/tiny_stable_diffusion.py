"""A tiny Stable Diffusion with random weights, in memory; no network of it has learned anything."""

import json
from typing import Any

import jax
import numpy as np

from t2i_jax import config as configs
from t2i_jax.convert.diffusers_parts import read_tokenizer
from t2i_jax.core.importer import Imported
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models import autoencoder_kl, clip, sd_unet
from t2i_jax.text import clip_tokenizer
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.clip import make_tower
from tests.conftest import ROOT


def random_params(shapes: Any, seed: int) -> Any:
    """Parameters of these shapes, float32; products are about one in size."""
    r = np.random.default_rng(seed)

    def draw(path, shape):
        start = 1.0 if path[-1].key == "scale" else 0.0
        size = 0.1 if len(shape.shape) < 2 else np.prod(shape.shape[:-1]) ** -0.5
        return (start + size * r.normal(size=shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_model(folder, *overrides: str) -> Imported:
    """The model of configs/stable_diffusion.py:smoke. folder: for the files of its tokenizer."""
    config = configs.load(f"{ROOT}/configs/stable_diffusion.py:smoke", overrides)
    letters = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 324)]]
    words = [*letters, *(f"{c}</w>" for c in letters), clip_tokenizer.START, clip_tokenizer.END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = read_tokenizer(folder)
    null, _ = tokenizers.encode(tokenizer, [""], config.text.length)
    net, vae = make_net(config), make_autoencoder(config)
    towers = {name: make_tower(fields)[0] for name, fields in config.text.towers.items()}
    frozen = {
        "first_stage": random_params(autoencoder_kl.param_shapes(vae), 1),
        "text": {
            name: random_params(clip.text_param_shapes(tower), i)
            for i, (name, tower) in enumerate(towers.items(), 2)
        },
        "null_text": {"clip": {name: x[0] for name, x in null.items()}},
    }
    net = random_params(sd_unet.param_shapes(net), 0)
    return Imported(config, {"model": {"text": {}, "net": net}}, frozen, tokenizer)
