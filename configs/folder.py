"""Your own pictures: a folder of them, with captions.

Either NAME.txt lies beside each picture, or one captions.jsonl, metadata.csv or metadata.jsonl.

python main.py train --config=configs/folder.py --config.data.path=DIR --workdir=runs/mine

It is for some hundreds of pictures: rectified flow in the principal components of whole pictures
(docs/recipes.md, "Your own folder"). For thousands, configs/folder.py:codes draws codes of patches.

`minilm` is for words that no caption has. The same pictures in large files:
configs/folder.py:webdataset for a folder of tar files, as img2dataset writes them,
configs/folder.py:parquet for one of parquet files.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "diffusion"
    config.data = {
        "name": "folder",
        "path": "",
        "resolution": 64,
        "max_skipped": 0.1,
        "augmentations": (),
    }
    config.text.update(recipes.WINDOW_TEXT)
    config.text.update(length=32, vocab_size=2048)
    config.eigenpictures = {"components": 256, "fit_pictures": 2000}
    config.diffusion = recipes.EIGENPICTURES_FLOW
    config.model = {
        "network": "latent_mlp",
        "width": 384,
        "depth": 4,
        "dropout": 0.1,
        "dtype": "float32",
    }
    config.optim.update(learning_rate=0.001)
    config.caption_dropout = 0.2
    config.word_dropout = 0.3
    config.ema_decay = 0.99
    config.sample = recipes.EIGENPICTURES_SAMPLE
    config.train.update(steps=1200, batch_size=256, eval_every=400, save_every=400, grid=16)
    return config


def minilm(config):
    """Captions encoded by MiniLM (first: main.py prepare --weights=minilm)."""
    config.text.encoder = "minilm"


def codes(config):
    """Codes of patches, drawn one after another: for thousands of pictures."""
    config.family = "autoregressive"
    del config["eigenpictures"]
    del config["diffusion"]
    config.image_tokenizer = {"patch": 4, "codes": 2048, "fit_pictures": 4000}
    config.model = {"width": 192, "depth": 6, "heads": 3, "dropout": 0.1, "dtype": "float32"}
    config.optim.update(recipes.EMOJI_OPTIM)
    config.sample = {
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 0.95,
        "guidance": 2.0,
        "candidates": 1,
    }
    config.train.update(steps=2000, batch_size=32)


def webdataset(config):
    """Pictures and captions in tar files, as img2dataset writes them."""
    config.data.name = "webdataset"


def parquet(config):
    """Pictures and captions in columns of parquet files."""
    config.data.name = "parquet"


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.data.resolution = 32
    if config.family == "autoregressive":
        recipes.make_tiny_transformer(config)
        config.image_tokenizer.update(codes=16, fit_pictures=16)
    else:
        config.model.update(width=32, depth=2)
        config.eigenpictures.update(components=16, fit_pictures=16)
        config.sample.steps = 3


VARIANTS = (minilm, codes, smoke, webdataset, parquet)
