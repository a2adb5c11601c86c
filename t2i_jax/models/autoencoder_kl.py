"""The autoencoder of Stable Diffusion and FLUX (arXiv 2112.10752, section 3.1), as published.

The networks are those of vqgan.py. With published weights:

    from t2i_jax.models.autoencoder_kl import VARIANTS, AutoencoderKL
    from t2i_jax.weights import arrays, autoencoder_kl

    net = AutoencoderKL(**VARIANTS["SD"])
    published = arrays.read("vae/diffusion_pytorch_model.safetensors")
    variables = {"params": autoencoder_kl.read(published, net, "the VAE")}
    mean, logvar = net.apply(variables, pictures, method=AutoencoderKL.encode)
    latents = net.scale(mean)  # what a diffusion model learns; 1/8 of the pictures' sides
    pictures = net.apply(variables, net.unscale(latents), method=AutoencoderKL.decode)

`arrays.read` also takes the `diffusion_flax_model.msgpack` of diffusers' former FlaxAutoencoderKL,
such as that of pcuenq/sd-vae-ft-mse-flax.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from t2i_jax.core.types import AnyArray
from t2i_jax.models import vqgan

MIN_LOGVAR, MAX_LOGVAR = -30.0, 20.0

VARIANTS = {
    "SD": dict(latent=4, **vqgan.VARIANTS["SD"], scaling=0.18215),
    "SDXL": dict(latent=4, **vqgan.VARIANTS["SD"], scaling=0.13025),
    "SD3": dict(latent=16, **vqgan.VARIANTS["SD3"], scaling=1.5305, shift=0.0609),
    "FLUX": dict(latent=16, **vqgan.VARIANTS["SD3"], scaling=0.3611, shift=0.1159),
}


class AutoencoderKL(nn.Module):
    """An encoder to normal distributions over latents, and a decoder from latents to pictures.

    latent: channels of the latents.
    width: channels of a level whose multiplier is 1.
    multipliers: channels of each level over `width`, the finest level first.
    blocks: residual blocks of each level of the encoder; the decoder has one more per level.
    middle_attention: whether there is attention between the two blocks in the middle.
    project: whether a 1 x 1 convolution follows the encoder and precedes the decoder.
    scaling: what diffusion models multiply the latents by, after the shift (see `scale`).
    shift: what they subtract first.
    dtype: of the computation; parameters are float32.
    """

    latent: int = 4
    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    middle_attention: bool = True
    project: bool = False
    scaling: float = 1.0
    shift: float = 0.0
    dtype: Any = jnp.float32

    def setup(self):
        fields: Any = dict(
            width=self.width,
            multipliers=self.multipliers,
            blocks=self.blocks,
            middle_attention=self.middle_attention,
            project=self.project,
            dtype=self.dtype,
        )
        self.encoder = vqgan.Encoder(2 * self.latent, **fields)
        self.decoder = vqgan.Decoder(**fields)

    def encode(
        self, pictures: Float[AnyArray, "B H W 3"]
    ) -> tuple[Float[Array, "B h w latent"], Float[Array, "B h w latent"]]:
        """Return (mean, log-variance) of the latents of pictures in [-1, 1], float32.

        h is H / 2^(levels - 1). A diffusion model learns `scale` of the mean or of a sample.
        Raises ValueError if H or W is not a multiple of 2^(levels - 1).
        """
        cell = 2 ** (len(self.multipliers) - 1)
        if pictures.shape[1] % cell or pictures.shape[2] % cell:
            raise ValueError(
                f"pictures of {pictures.shape[1]} x {pictures.shape[2]} do not divide into cells "
                f"of {cell} pixels: their sides must be multiples of {cell}"
            )
        mean, logvar = jnp.split(self.encoder(jnp.asarray(pictures)), 2, axis=-1)
        return mean, jnp.clip(logvar, MIN_LOGVAR, MAX_LOGVAR)

    def decode(self, z: Float[AnyArray, "B h w latent"]) -> Float[Array, "B H W 3"]:
        """Return pictures, float32 and approximately in [-1, 1], of latents that are unscaled."""
        return self.decoder(jnp.asarray(z))

    def __call__(self, pictures: Float[AnyArray, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Return the pictures decoded from the means of their latents."""
        return self.decode(self.encode(pictures)[0])

    def scale(self, z: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
        """Return the latents of a diffusion model, with a variance of about 1."""
        return jnp.asarray((z - self.shift) * self.scaling)

    def unscale(self, latents: Float[AnyArray, "*shape"]) -> Float[Array, "*shape"]:
        """Return what `decode` takes: the inverse of `scale`."""
        return jnp.asarray(latents / self.scaling + self.shift)


def param_shapes(net: AutoencoderKL) -> Any:
    """Return the parameters of the network as shapes: nothing is computed."""
    side = 2 ** (len(net.multipliers) - 1)
    pictures = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), pictures)["params"]
