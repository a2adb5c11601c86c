"""Which picture belongs to which caption: shapes and words in one space (CLIP, SigLIP).

python main.py train --config=configs/shapes_contrastive.py --workdir=runs/shapes_contrastive
python main.py embed_text --workdir=runs/shapes_contrastive --prompt="a large red circle"
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "contrastive"
    config.data = recipes.SHAPES_DATA
    config.text.update(encoder="transformer", length=12, vocab_size=512, depth=2, window=2)
    config.contrastive = {"loss": "softmax", "channels": 128}
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(recipes.SHAPES_OPTIM)
    config.ema_decay = 0.99
    config.train.update(steps=600, batch_size=128, eval_every=200, save_every=200)
    return config


def siglip(config):
    """The sigmoid loss of SigLIP."""
    config.contrastive.loss = "sigmoid"


def resnet(config):
    """CLIP's ResNet in small in place of the vision transformer."""
    config.model = {"network": "picture_resnet", "width": 16, "multipliers": (1, 2, 4)}


def emoji(config):
    """Emoji, from features of EfficientNet-Lite0 and of MiniLM, neither of them trained.

    First: main.py prepare --data=emoji, --weights=efficientnet_lite0 and --weights=minilm.
    """
    config.data = recipes.EMOJI_DATA
    config.text.update(encoder="minilm", length=24, window=0)
    config.contrastive.source = "features"
    config.first_stage.cache = True  # of the features
    config.model.update(patch=1, depth=1, dropout=0.3)
    config.optim.update(recipes.EMOJI_OPTIM)
    config.train.update(steps=400, eval_every=100, save_every=100)


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    if config.model.get("network") == "picture_resnet":
        config.model.update(width=8, multipliers=(1, 1))
    else:
        recipes.make_tiny_transformer(config)
        config.model.depth = 1
    config.text.depth = 0
    config.contrastive.channels = 16


VARIANTS = (siglip, resnet, emoji, smoke)
