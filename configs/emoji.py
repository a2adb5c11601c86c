"""Real emoji in three art styles, drawn from their names.

python main.py prepare --data=emoji
python main.py train --config=configs/emoji.py --workdir=runs/emoji
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one."""
    config = base()
    config.family = "autoregressive"
    config.data = {"name": "emoji", "resolution": 32, "styles": ("fluent", "noto", "twemoji")}
    config.text.update({"encoder": "transformer", "length": 24, "vocab_size": 2048, "width": 128, "depth": 0, "window": 2})
    config.image_tokenizer = {"patch": 4, "codes": 2048, "fit_pictures": 4031}
    config.model = {"width": 192, "depth": 6, "heads": 3, "dropout": 0.1, "dtype": "float32"}
    config.optim.update(
        {"name": "muon", "learning_rate": 0.01, "schedule": "linear", "b2": 0.98, "weight_decay": 0.01, "adam_scale": 3.0}
    )
    config.sample = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "guidance": 1.0, "candidates": 1}
    config.train.update({"steps": 2800, "batch_size": 32, "grid": 32})
    if arg == "smoke":
        make_tiny(config)
        config.image_tokenizer.update({"codes": 32, "fit_pictures": 16})
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
