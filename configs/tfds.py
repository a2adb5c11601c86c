"""Any pictures of TensorFlow Datasets, by name: mnist, cifar10, lsun/bedroom, coco_captions, ...

python main.py train --config=configs/tfds.py --config.data.dataset=cifar10 --workdir=runs/cifar10

The data is downloaded once. Captions are its own, or its labels put into data.template.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "autoregressive"
    config.data = {
        "name": "tfds",
        "dataset": "cifar10",
        "resolution": 32,
        "template": "a photo of a {}",
        "augmentations": (),
    }
    config.text.update(recipes.WINDOW_TEXT)
    config.text.update(length=32, vocab_size=2048)
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
    config.train.update(steps=3000, batch_size=32)
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    recipes.make_tiny_transformer(config)
    config.image_tokenizer.update(codes=16, fit_pictures=16)


VARIANTS = (smoke,)
