"""The style of any picture in one pass: a decoder for AdaIN, trained on emoji.

python main.py prepare --weights=efficientnet_lite0
python main.py prepare --data=emoji --resolution=64
python main.py train --config=configs/emoji_style.py --workdir=runs/emoji_style
python main.py stylize --workdir=runs/emoji_style --image=X.png --style=Y.png --out=styled

Contents and styles are the same emoji, in three art styles, each set in an order of its own.
"""

from t2i_jax.config import base, recipes


def get_config():
    config = base()
    config.family = "adain"
    emoji = {"name": "emoji", "styles": recipes.EMOJI_DATA["styles"]}
    config.data = {"name": "unpaired", "resolution": 64, "first": emoji, "second": emoji}
    config.text.update(encoder="none", length=2)
    config.caption_dropout = 0.0
    config.ema_decay = 0.99
    config.model = {"width": 64}
    config.optim.update(learning_rate=2e-3, schedule="cosine", weight_decay=0.0, clip=1.0)
    config.train.update(
        steps=1500, batch_size=4, eval_every=500, save_every=500, validation_examples=64
    )
    return config


def smoke(config):
    """A tiny one that only shows that everything runs."""
    recipes.make_tiny(config)
    config.model.width = 8
    config.data.resolution = 32


VARIANTS = (smoke,)
