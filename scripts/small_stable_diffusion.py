r"""Put a small Stable Diffusion together that has not learned to draw yet, to train it.

python main.py train --config=configs/emoji_vqgan.py:latents --workdir=runs/emoji_autoencoder
python scripts/small_stable_diffusion.py --config=configs/stable_diffusion.py:emoji \
    --autoencoder=runs/emoji_autoencoder --workdir=runs/emoji_start
python main.py train --config=configs/stable_diffusion.py:emoji \
    --config.init_from=runs/emoji_start --workdir=runs/emoji_sd

The autoencoder is that of a run of family "vqgan", with latents that are standardised: mean 0 and
deviation 1 of each channel. The tokenizer is learned from the captions. The U-Net and the text
encoder, which is never trained, have random weights.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.convert.diffusers_parts import with_special_tokens
from t2i_jax.core.importer import Imported
from t2i_jax.core.text import TextCondition
from t2i_jax.core.trees import require_fit
from t2i_jax.data.load import load_source
from t2i_jax.families import vqgan
from t2i_jax.families.published_autoencoder import make_autoencoder
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models import autoencoder_kl
from t2i_jax.runs.converted import create_run
from t2i_jax.runs.run_folder import config_of, read_run, read_variables
from t2i_jax.text import clip_tokenizer
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.clip import make_tower


def standardised(frozen: dict) -> dict:
    """Return the parameters of AutoencoderKL whose latents have mean 0 and deviation 1.

    frozen: of `vqgan.make_latents`: parameters, and mean and deviation [channels] of the latents.
    Both are in the layers beside the latents.
    """
    encoder, decoder = (dict(frozen["params"][name]) for name in ("encoder", "decoder"))
    mean, deviation = frozen["mean"], frozen["deviation"]
    scale = np.concatenate([deviation, np.ones_like(deviation)])  # of the mean, of log-variances
    shift = np.concatenate([mean, 2 * np.log(deviation)])
    kernel, bias = (encoder["project"][name] for name in ("kernel", "bias"))
    encoder["project"] = {"kernel": kernel / scale, "bias": (bias - shift) / scale}
    kernel, bias = (decoder["project"][name] for name in ("kernel", "bias"))
    decoder["project"] = {"kernel": deviation[:, None] * kernel, "bias": bias + mean @ kernel}
    return {"encoder": encoder, "decoder": decoder}


def read_autoencoder(workdir: str, config, source) -> dict:
    """Return the autoencoder of a run, for a model of this config. source: of its pictures."""
    own: Any = ConfigDict(config_of(read_run(workdir)).to_dict())
    own.data.resolution = config.data.resolution  # convolutions take other sizes too
    fitted = vqgan.make_latents(own.lock()).fit(read_variables(workdir), source)
    params = standardised(fitted)
    wanted = autoencoder_kl.param_shapes(make_autoencoder(config))
    require_fit(params, wanted, f"the autoencoder of {workdir} is not that of config.vae")
    return params


def random_tower(about, seed: int) -> Any:
    """Return random parameters of a text encoder, whose tokens differ much from one another.

    START and END, which come last, are zero: so what fills a caption up becomes the mean of its
    words, and a U-Net that attends to all tokens alike is told the caption.
    """
    tower, _, _ = make_tower(about)
    tokens = jnp.zeros((1, tower.length), jnp.int32)
    params: Any = jax.jit(tower.init)(jax.random.key(seed), tokens)["params"]
    embed = jax.random.normal(jax.random.key(seed + 1), params["embed"]["embedding"].shape)
    return {**params, "embed": {"embedding": embed.at[-2:].set(0.0)}}


def random_unet(config) -> Any:
    """Return parameters of the U-Net before its first step."""
    net = make_net(config)
    side = config.data.resolution // 2 ** (len(config.vae.multipliers) - 1)
    words = jnp.zeros((1, 1, net.text_width))
    text = TextCondition(words, words[:, 0], jnp.ones((1, 1), bool))
    x = jnp.zeros((1, side, side, net.in_channels))
    return jax.jit(net.init)(jax.random.key(config.seed), x, jnp.zeros(1), text)["params"]


def main() -> None:
    """Write the run folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="of family stable_diffusion")
    parser.add_argument("--autoencoder", required=True, help="a run of family vqgan")
    parser.add_argument("--workdir", required=True, help="a new folder")
    args = parser.parse_args()
    config = configs.load(args.config, [])
    source = load_source(config.data, "train")
    about = config.text.towers["text_encoder"]
    tokenizer = with_special_tokens(clip_tokenizer.learn(source.captions, about["vocab_size"]))
    null, _ = tokenizers.encode(tokenizer, [""], config.text.length)
    frozen = {
        "first_stage": read_autoencoder(args.autoencoder, config, source),
        "text": {"text_encoder": random_tower(about, config.seed)},
        "null_text": {"clip": {name: x[0] for name, x in null.items()}},
    }
    params = {"model": {"text": {}, "net": random_unet(config)}}
    create_run(Imported(config, params, frozen, tokenizer), Path(args.workdir))
    print(f"{args.workdir}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
