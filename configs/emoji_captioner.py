"""What an emoji is, in words, from features of EfficientNet-Lite0.

python main.py prepare --data=emoji
python main.py prepare --weights=efficientnet_lite0
python main.py train --config=configs/emoji_captioner.py --workdir=runs/emoji_captioner
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "codes" to look at codes of patches instead, "smoke" for a tiny one of those."""
    config = base()
    config.family = "captioner"
    config.data = {"name": "emoji", "resolution": 64, "styles": ("fluent", "noto", "twemoji")}
    config.text.update({"encoder": "transformer", "length": 24, "vocab_size": 2048})
    config.captioner = {"source": "features", "map": 4, "smoothing": 0.1}
    config.first_stage.cache = True  # of the features
    config.model = {"width": 192, "depth": 4, "heads": 3, "dropout": 0.2, "dtype": "float32"}
    config.optim.update(
        {"name": "muon", "learning_rate": 0.01, "schedule": "linear", "b2": 0.98, "weight_decay": 0.01, "adam_scale": 3.0}
    )
    config.caption = {"beams": 4, "temperature": 0.0, "top_p": 1.0, "length_penalty": 0.6}
    config.train.update({"steps": 1500, "batch_size": 32, "grid": 32})
    if arg in ("codes", "smoke"):
        config.captioner.source = "codes"
        config.image_tokenizer = {"patch": 8, "codes": 2048, "fit_pictures": 4031}
    if arg == "smoke":
        make_tiny(config)
        config.image_tokenizer.update({"codes": 32, "fit_pictures": 16})
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
