"""Captioned shapes drawn by a language model: its transformer, with codes of pictures added to its words.

python main.py train --config=configs/shapes_llm.py:FOLDER --workdir=runs/shapes_llm

FOLDER is a published language model in Llama's or GPT-2's layout: config.json, model.safetensors, tokenizer.json, such as those
of SmolLM2-135M. Not measured yet; a model of that size wants an accelerator.
"""

from t2i_jax.config import base, make_tiny
from t2i_jax.convert import language_model


def get_config(arg=""):
    """arg: the folder to start from, whose sizes it takes; "" for the sizes of SmolLM2-135M, to be started with
    --config.init_from=FOLDER (or from nothing); "smoke" for a tiny Llama from nothing that only shows that everything runs.
    """
    config = base()
    config.family = "autoregressive"
    config.data = {"name": "shapes", "resolution": 32, "scenes": 0}
    published = language_model.VARIANTS["SmolLM2-135M"]
    if arg == "smoke":
        sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48)
        published = {**published, "vocab_size": 512, **sizes}
    elif arg:
        published, config.init_from = language_model.read_config(arg), arg
    fields = language_model.fields(published)
    config.text.update({**fields["text"], "length": 24})
    config.model = {**fields["model"], "dropout": 0.0, "dtype": "float32"}
    config.image_tokenizer = {"patch": 4, "codes": 1024, "fit_pictures": 4000}
    config.optim.update({"learning_rate": 3e-4, "warmup": 200, "b2": 0.95, "weight_decay": 0.1})
    config.sample = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 1}
    config.train.update({"steps": 3000, "batch_size": 32, "eval_every": 1500, "save_every": 1500})
    if arg == "smoke":
        make_tiny(config)
        config.data.scenes = 64
        config.image_tokenizer.update({"codes": 64, "fit_pictures": 32})
    return config
