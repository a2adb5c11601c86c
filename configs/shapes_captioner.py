"""What is in a picture of shapes, in words: a transformer that continues the codes of its patches with a caption.

python main.py train --config=configs/shapes_captioner.py --workdir=runs/shapes_captioner
python main.py caption --workdir=runs/shapes_captioner --image=X.png
"""

from t2i_jax.config import base, make_tiny


def get_config(arg=""):
    """arg: "" for the experiment, "smoke" for a tiny one."""
    config = base()
    config.family = "captioner"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    config.text.update({"encoder": "transformer", "length": 12, "vocab_size": 512})
    config.image_tokenizer = {"patch": 4, "codes": 1024, "fit_pictures": 4000}
    config.captioner = {"source": "codes", "map": 4, "smoothing": 0.0}
    config.model = {"width": 128, "depth": 4, "heads": 4, "dropout": 0.0, "dtype": "float32"}
    config.optim.update(
        {"name": "muon", "learning_rate": 0.02, "schedule": "linear", "b2": 0.98, "weight_decay": 0.0, "adam_scale": 3.0}
    )
    config.ema_decay = 0.99
    config.caption = {"beams": 1, "temperature": 0.0, "top_p": 1.0, "length_penalty": 0.6}
    config.train.update({"steps": 1200, "batch_size": 32})
    if arg == "smoke":
        make_tiny(config)
        config.data.scenes = 64
        config.image_tokenizer.update({"codes": 64, "fit_pictures": 32})
        config.model.update({"width": 32, "depth": 2, "heads": 2})
    return config
