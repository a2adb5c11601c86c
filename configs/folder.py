"""Your own pictures: a folder of them, with captions.

Either NAME.txt lies beside each picture, or one captions.jsonl, metadata.csv or metadata.jsonl.

python main.py train --config=configs/folder.py --config.data.path=DIR --workdir=runs/mine

The same pictures in large files: configs/folder.py:webdataset for a folder of tar files, as
img2dataset writes them, configs/folder.py:parquet for one of parquet files.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "autoregressive"
    config.data = {
        "name": "folder",
        "path": "",
        "resolution": 64,
        "max_skipped": 0.1,
        "augmentations": (),
    }
    config.text.update(recipes.WINDOW_TEXT)
    config.text.update(length=48, vocab_size=2048)
    config.image_tokenizer = {"patch": 8, "codes": 2048, "fit_pictures": 4000}
    config.model = {"width": 192, "depth": 6, "heads": 3, "dropout": 0.1, "dtype": "float32"}
    config.optim.update(recipes.EMOJI_OPTIM)
    config.sample = {
        "temperature": 0.8,
        "top_k": 0,
        "top_p": 0.95,
        "guidance": 2.0,
        "candidates": 1,
    }
    config.train.update(steps=2000, batch_size=32, grid=16)
    return config


def webdataset(config):
    """Pictures and captions in tar files, as img2dataset writes them."""
    config.data.name = "webdataset"


def parquet(config):
    """Pictures and captions in columns of parquet files."""
    config.data.name = "parquet"


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.data.resolution = 32
    config.image_tokenizer.update(codes=16, fit_pictures=16)


VARIANTS = (smoke, webdataset, parquet)
