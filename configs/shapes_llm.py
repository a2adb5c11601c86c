"""Captioned shapes drawn by a published language model that also learns codes of pictures.

python main.py train --config=configs/shapes_llm.py:FOLDER --workdir=runs/shapes_llm

FOLDER is a published language model in Llama's or GPT-2's layout: config.json, model.safetensors,
tokenizer.json, such as those of SmolLM2-135M. Its transformer gets a vocabulary of codes beside its
words. Not measured yet; a model of that size wants an accelerator.
"""

from t2i_jax.config import base, recipes
from t2i_jax.convert import language_model

ARGUMENT = "the folder of a published language model, to start from it at its sizes"


def get_config(folder=""):
    """Without a folder: the sizes of SmolLM2-135M, to start with --config.init_from=FOLDER, or
    from random weights."""
    config = base()
    config.family = "autoregressive"
    config.data = recipes.SHAPES_DATA
    config.init_from = folder
    set_sizes(
        config,
        language_model.read_config(folder) if folder else language_model.VARIANTS["SmolLM2-135M"],
    )
    config.image_tokenizer = recipes.SHAPES_CODES
    config.optim.update(learning_rate=3e-4, warmup=200, b2=0.95, weight_decay=0.1)
    config.sample = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 1}
    config.train.update(steps=3000, batch_size=32, eval_every=1500, save_every=1500)
    return config


def set_sizes(config, published):
    """Take the sizes of a published config.json."""
    fields = language_model.fields(published)
    config.text.update({**fields["text"], "length": 24})
    config.model = {**fields["model"], "dropout": 0.0, "dtype": "float32"}


def smoke(config):
    """A tiny Llama with random weights that only shows that everything runs."""
    sizes = dict(
        vocab_size=512,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
    )
    set_sizes(config, {**language_model.VARIANTS["SmolLM2-135M"], **sizes})
    recipes.make_tiny(config)
    config.image_tokenizer.update(codes=64, fit_pictures=32)


VARIANTS = (smoke,)
