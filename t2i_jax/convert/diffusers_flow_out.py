"""A folder that diffusers loads, written from a run of family `flow_transformer`."""

from pathlib import Path

from tokenizers import Tokenizer

from t2i_jax.convert.diffusers_flow import FLOWS
from t2i_jax.convert.diffusers_out import write_json, write_net, write_towers, write_vae
from t2i_jax.core.files import make_folder
from t2i_jax.core.importer import Imported
from t2i_jax.families.flow_transformer import make_net
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.text.clip import make_towers, widths_of
from t2i_jax.text.clip_t5 import T5, make_t5
from t2i_jax.weights import t5 as t5_weights


def families() -> tuple[str, ...]:
    """Return the families whose runs `write` can write."""
    return ("flow_transformer",)


def write(model: Imported, folder: Path) -> None:
    """Write a published pipeline: model_index.json, and a folder for each part."""
    config, frozen = model.config, model.frozen
    net, vae, t5 = make_net(config), make_autoencoder(config), make_t5(config.text.t5)
    name, flow = next((n, f) for n, f in FLOWS.items() if f.network == config.model.network)
    _, pooled = widths_of(make_towers(config.text))
    about = flow.weights.config_json(net, vae.latent, t5.width, sum(pooled))
    scheduler = config.diffusion.scheduler.to_dict()
    without = config.text.get("zeros", 0)
    of_clip, of_t5 = (model.tokenizer, None) if without else model.tokenizer.parts
    t5_folder, t5_tokens = flow.t5
    params = model.params["model"]["net"]
    write_net(folder / "transformer", about, params, flow.weights.published)
    write_vae(folder / "vae", vae, config.data.resolution, frozen["first_stage"])
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    if of_t5:
        t5_json, published = t5_weights.config_json(t5), t5_weights.published
        write_net(folder / t5_folder, t5_json, frozen["text"][T5], published, "model")
        _write_t5_tokenizer(folder / t5_tokens, of_t5, flow.length)
    index = {
        "_class_name": name,
        "transformer": ["diffusers", about["_class_name"]],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        t5_folder: ["transformers", "T5EncoderModel"] if of_t5 else [None, None],
        t5_tokens: ["transformers", "T5TokenizerFast"] if of_t5 else [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        **write_towers(folder, config, frozen["text"], of_clip),
    }
    write_json(folder / "model_index.json", index)  # last: it makes the folder a pipeline


def _write_t5_tokenizer(folder: Path, tokenizer: Tokenizer, length: int) -> None:
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    about = {"tokenizer_class": "T5Tokenizer", "model_max_length": length, **special}
    make_folder(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", about)
