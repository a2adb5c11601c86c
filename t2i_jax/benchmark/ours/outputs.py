"""The output of each family's network for a batch: what a twin has to agree with.

Each function is (prepared, params {player: tree}, batch) -> (inputs, output). `inputs` are
the numbers that the network is given besides the batch: times, noise, masks.
"""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.pictures import to_unit
from t2i_jax.families.autoencoder import make_autoencoder
from t2i_jax.families.conditioning import make_conditioning
from t2i_jax.families.diffusion import make_denoiser
from t2i_jax.families.first_stage import load_codes
from t2i_jax.families.game import make_game
from t2i_jax.models.masked_transformer import MaskedTransformer
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.runs.prepare import Prepared


def of_diffusion(prepared: Prepared, params, batch) -> tuple[dict, jax.Array]:
    """Return the prediction for noisy pictures at times across [0, 1]."""
    denoiser, frozen = make_denoiser(prepared.config), prepared.frozen
    text = batch["text"][prepared.config.text.encoder]
    x, model = noisy(batch["image"]), params["model"]
    t = np.linspace(0.05, 0.95, len(x), dtype=np.float32)

    def predict(model, x, t):
        condition = denoiser.encode_text(model, frozen, text)
        return denoiser.predict(model, x, t, condition)

    return {"x": x, "t": t}, jax.jit(predict)(model, x, t)


def of_autoregressive(prepared: Prepared, params, batch) -> tuple[dict, jax.Array]:
    """Return teacher-forced logits of the pictures' codes."""
    return {}, _logits_of_codes(PrefixDecoder, prepared, params, batch)


def of_masked(prepared: Prepared, params, batch) -> tuple[dict, jax.Array]:
    """Return the logits of the pictures' codes, every second of which is masked."""
    stage = load_codes(prepared.config)
    masked = (
        np.arange(stage.grid[0] * stage.grid[1]) % 2 == np.arange(len(batch["index"]))[:, None] % 2
    )
    (logits,) = _logits_of_codes(MaskedTransformer, prepared, params, batch, masked)
    return {"masked": masked}, logits


def _logits_of_codes(network, prepared, params, batch, *inputs):
    config, frozen, model = prepared.config, prepared.frozen, params["model"]
    stage, conditioning = load_codes(config), make_conditioning(config)
    net = network(codes=stage.size, grid=stage.grid, **config.model)
    stored = frozen["first_stage"]

    def logits(model, batch):
        condition = conditioning.encode(model["text"], frozen, conditioning.text_of(batch))
        codes = stage.encode(stored, batch["image"])
        return net.apply({"params": model["net"]}, condition, codes, *inputs, stage.vectors(stored))

    return jax.jit(logits)(model, batch)


def of_vqgan(prepared: Prepared, params, batch) -> tuple[dict, jax.Array]:
    """Return the reconstructions of noisy pictures, from the encoder's means."""
    net, x = make_autoencoder(prepared.config), noisy(batch["image"])
    draw = jax.jit(lambda model, x: net.draw(model, net.latents(model, x)))
    return {"x": x}, draw(params["model"], x)


def of_gan(prepared: Prepared, params, batch) -> tuple[dict, jax.Array]:
    """Return the generator's pictures of random numbers, and the logits of noisy pictures."""
    game, x, frozen = make_game(prepared.config), noisy(batch["image"]), prepared.frozen
    text, stats = game.conditioning.text_of(batch), {"generator": {}, "discriminator": {}}
    rng = np.random.default_rng(1)
    z = rng.normal(size=(len(x), game.generator.latent)).astype(np.float32)

    def play(params, z, x):
        own, other = (
            game.encode_text(params, frozen, player, text)
            for player in ("generator", "discriminator")
        )
        pictures, _ = game.synthesize(params, stats, z[:, None], own, None, True)
        logits, *_ = game.judge(params, stats, x, other, True)
        return jnp.concatenate([pictures.ravel(), logits])

    return {"z": z, "x": x}, jax.jit(play)(params, z, x)


def noisy(image) -> np.ndarray:
    """Return pictures float32 with noise.

    Flat colours would have a variance of zero, and norms would amplify rounding.
    """
    return np.asarray(
        to_unit(image) + np.random.default_rng(0).normal(size=image.shape), np.float32
    )


OUTPUTS = {
    "autoregressive": of_autoregressive,
    "diffusion": of_diffusion,
    "gan": of_gan,
    "masked": of_masked,
    "vqgan": of_vqgan,
}
