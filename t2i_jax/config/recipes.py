"""Settings that several config files share. They live here, in the package, because a config file
is run by its path, from any folder, and can import nothing that lies beside it."""

# Muon at the rate for pictures that are drawn without end (shapes): no weight decay.
SHAPES_OPTIM = {
    "name": "muon",
    "learning_rate": 0.02,
    "schedule": "linear",
    "b2": 0.98,
    "weight_decay": 0.0,
    "adam_scale": 3.0,
}
# Muon for a few thousand pictures that come again in every epoch.
EMOJI_OPTIM = {**SHAPES_OPTIM, "learning_rate": 0.01, "weight_decay": 0.01}

# Muon for a first stage, whose vectors and biases learn at the rate of the matrices.
VQGAN_OPTIM = {**SHAPES_OPTIM, "adam_scale": 1.0}

# A table of words, and a window over neighbouring words; no transformer blocks (docs/recipes.md).
WINDOW_TEXT = {"encoder": "transformer", "width": 128, "depth": 0, "window": 2}

SHAPES_DATA = {"name": "shapes", "resolution": 32, "scenes": 0}
SHAPES_TEXT = {**WINDOW_TEXT, "length": 12, "vocab_size": 512}
SHAPES_CODES = {"patch": 4, "codes": 1024, "fit_pictures": 4000}
# 512 masks of the background alone, and of the background and one of 8 colours.
SHAPES_PAIRS = {"patch": 4, "codes": 9 * 512, "pairs": 9, "fit_pictures": 4000}

EMOJI_DATA = {"name": "emoji", "resolution": 32, "styles": ("fluent", "noto", "twemoji")}
EMOJI_TEXT = {**WINDOW_TEXT, "length": 24, "vocab_size": 2048}
EMOJI_CODES = {"patch": 4, "codes": 2048, "fit_pictures": 4031}  # all training pictures

# Rectified flow in the principal components of whole pictures (docs/recipes.md, "Your own folder").
EIGENPICTURES_FLOW = {
    "schedule": "rectified",
    "parameterization": "x0",
    "weighting": "x0",
    "time": "uniform",
    "shift": 4.0,
}
EIGENPICTURES_SAMPLE = {
    "sampler": "dpmpp_2m_sde",
    "steps": 20,
    "guidance": 1.5,
    "shift": 3.0,
    "candidates": 1,
}
# Words that training has not have a vector too, and drawing needs no other weights.
FIXED_WORDS_TEXT = {"encoder": "static_minilm", "length": 24}

FASHION_DATA = {"name": "fashion_mnist", "resolution": 32, "template": "a photo of a {}"}
# AdamW without decay, clipping or a falling rate, for the two players of a game.
FASHION_GAME_OPTIM = {
    "learning_rate": 5e-4,
    "schedule": "constant",
    "b1": 0.5,
    "weight_decay": 0.0,
    "clip": 0.0,
}

# A first stage whose codes are of the pixels of their own cells alone: 48 numbers of 4 x 4 pixels.
PATCH_AUTOENCODER = {
    "encoder": "patches",
    "multipliers": (1,),
    "blocks": 1,
    "attention": (),
    "middle_attention": False,
    "patch": 4,
    "resample": "fold",
    "dtype": "float32",
}
PATCH_QUANTIZER = {"kind": "ema", "size": 2048, "dim": 48, "normalize": False}


def make_tiny(config) -> None:
    """Set what all variants "smoke" have in common: a few steps on small batches of little data.

    Networks are made small by each config file.
    """
    config.text.width = 32
    config.train.update(
        steps=6,
        batch_size=8,
        log_every=2,
        eval_every=4,
        save_every=3,
        grid=4,
        validation_examples=16,
        score_every=0,
        score_examples=8,
    )
    config.evaluate.update(num=16, batch=8)
    if config.data.name == "shapes":
        config.data.scenes = 64


def make_tiny_transformer(config) -> None:
    """Make the transformer of a "smoke" variant small."""
    config.model.update(width=32, depth=2, heads=2)
