"""Stable Diffusion 3 and FLUX.1 in the folders of diffusers."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tokenizers import Tokenizer, processors

from t2i_jax.convert.diffusers_parts import (
    OF_DIFFUSERS,
    OF_TRANSFORMERS,
    describe_towers,
    leaves_out,
    part_of,
    plain,
    read_arrays,
    read_towers,
    run_config,
)
from t2i_jax.core.importer import Imported
from t2i_jax.core.text import TextCondition
from t2i_jax.families.flow_transformer import NETWORKS, patch_of
from t2i_jax.models.autoencoder_kl import AutoencoderKL
from t2i_jax.models.flux_transformer import FluxTransformer
from t2i_jax.models.t5 import T5Encoder
from t2i_jax.text import t5_tokenizer
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.clip import BEFORE_LAST, FINAL
from t2i_jax.text.clip_t5 import T5
from t2i_jax.text.joint_tokenizer import JointTokenizer
from t2i_jax.weights import autoencoder_kl as autoencoder_weights
from t2i_jax.weights import flux_transformer, sd3_transformer
from t2i_jax.weights import t5 as t5_weights
from t2i_jax.weights.config_json import read_json
from t2i_jax.weights.published import read_params
from t2i_jax.weights.scheduler import read_scheduler

SIDE = 128  # of the latents of a picture, where a config.json does not say it


class Flow(NamedTuple):
    """What is particular to a class of pipelines.

    network: a name of families.flow_transformer.NETWORKS.
    weights: the module of weights/ that knows its format.
    encoders: {folder of a CLIP: that of its tokenizer}.
    t5: (folder of T5, that of its tokenizer).
    hidden: which hidden state of CLIP is used.
    sequence: `config.text.sequence`.
    length: tokens of T5.
    """

    network: str
    weights: ModuleType
    encoders: Mapping[str, str]
    t5: tuple[str, str]
    hidden: int
    sequence: str
    length: int


SD3 = Flow(
    "sd3_transformer",
    sd3_transformer,
    {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"},
    ("text_encoder_3", "tokenizer_3"),
    BEFORE_LAST,
    "both",
    256,
)
FLUX = Flow(
    "flux_transformer",
    flux_transformer,
    {"text_encoder": "tokenizer"},
    ("text_encoder_2", "tokenizer_2"),
    FINAL,
    "t5",
    512,
)
FLOWS = {
    "StableDiffusion3Pipeline": SD3,
    "StableDiffusion3Img2ImgPipeline": SD3,
    "FluxPipeline": FLUX,
    "FluxImg2ImgPipeline": FLUX,
}


def read_flow(folder: Path, name: str, dtype: str) -> Imported:
    """Read a pipeline of class `name`, one of FLOWS.

    dtype: of the parameters and of the computation.
    Raises as convert.diffusers.read does.
    """
    flow = FLOWS[name]
    scheduler = read_json(part_of(folder, "scheduler") / "scheduler_config.json")
    read_scheduler(scheduler)  # refuses what is not supported
    about = read_json(part_of(folder, "transformer") / "config.json")
    net = NETWORKS[flow.network](**flow.weights.fields(about))
    vae_json = read_json(part_of(folder, "vae") / "config.json")
    vae = AutoencoderKL(**autoencoder_weights.fields(vae_json))
    towers, of_clip, length = describe_towers(folder, flow.encoders, flow.hidden, dtype)
    t5_folder, t5_tokens = (folder / part for part in flow.t5)
    without = flow is SD3 and leaves_out(folder, t5_folder.name)
    if without:
        t5 = T5Encoder(width=about["joint_attention_dim"], depth=0, heads=1, mlp=1)
        tokenizer = of_clip
    else:
        part_of(folder, t5_folder.name)
        t5 = T5Encoder(**t5_weights.fields(read_json(t5_folder / "config.json")))
        of_t5 = _t5_tokenizer(part_of(folder, t5_tokens.name))
        tokenizer = JointTokenizer([of_clip, of_t5], [length])
        length += flow.length
    side = about.get("sample_size", SIDE) * 2 ** (len(vae.multipliers) - 1)
    config = run_config(
        "flow_transformer",
        text={
            "encoder": "clip_t5",
            "length": length,
            "towers": towers,
            "t5": {**plain(t5), "dtype": dtype},
            "sequence": flow.sequence,
            **({"zeros": flow.length} if without else {}),
        },
        model={"network": flow.network, **plain(net), "dtype": dtype},
        vae={**plain(vae), "dtype": dtype},
        diffusion={"scheduler": scheduler},
        data={"name": "folder", "resolution": side},
    )

    def read_net(arrays, net, source, dtype):
        places = flow.weights.published
        return read_params(arrays, _shapes(net, about), places, source, dtype=dtype)

    def read_t5(arrays, net, source, dtype):
        shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
        places, ignored = t5_weights.published, t5_weights.ignored
        return read_params(arrays, shapes["params"], places, source, ignored, dtype)

    vae_folder = folder / "vae"
    text = read_towers(folder, towers, dtype)
    if not without:
        text[T5] = read_arrays(t5_folder, OF_TRANSFORMERS, read_t5, t5, dtype)
    frozen = {
        "first_stage": read_arrays(vae_folder, OF_DIFFUSERS, autoencoder_weights.read, vae, dtype),
        "text": text,
        "null_text": {"clip_t5": _null_text(tokenizer, length)},
    }
    params = read_arrays(folder / "transformer", OF_DIFFUSERS, read_net, net, dtype)
    return Imported(config, {"model": {"text": {}, "net": params}}, frozen, tokenizer)


def _t5_tokenizer(folder: Path) -> Tokenizer:
    tokenizer = t5_tokenizer.load(folder)
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A </s>", special_tokens=[("</s>", t5_tokenizer.END)]
    )
    return tokenizers.standardise(tokenizer)


def _shapes(net: Any, about: Mapping[str, Any]) -> Any:
    """Return the shapes of the network's parameters. about: its config.json."""
    of_flux, side = isinstance(net, FluxTransformer), patch_of(net)
    channels = about["in_channels"] // side**2 if of_flux else about["in_channels"]
    text = TextCondition(
        jnp.zeros((1, 2, about["joint_attention_dim"])),
        jnp.zeros((1, about["pooled_projection_dim"])),
        jnp.ones((1, 2), bool),
        jnp.zeros((1, 1)) if of_flux and net.guidance else None,
    )
    x = jnp.zeros((1, side, side, channels))
    return jax.eval_shape(net.init, jax.random.key(0), x, jnp.zeros(1), text)["params"]


def _null_text(tokenizer: JointTokenizer | Tokenizer, length: int) -> dict[str, Any]:
    """Return the tokens and the mask of the empty caption."""
    tokens, _ = tokenizers.encode(tokenizer, [""], length)
    return {name: rows[0] for name, rows in tokens.items()}
