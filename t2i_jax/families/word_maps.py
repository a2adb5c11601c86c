"""Word maps: which part of a picture belongs to which word of its caption, as a model sees it.

The ability `explain` reads them from the attention of the network that draws (after DAAM, arXiv
2210.04885). It takes any picture with its caption, one that the model drew or another.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Variables
from t2i_jax.core.random import derive_keys, draw_normal
from t2i_jax.families.conditioning import Conditioning

# A network that removes noise is asked at these times. With more noise, the attention says less
# about which word belongs to a cell.
TIMES = (0.05, 0.2, 0.4)


def normalised(maps: Float[Array, "B L h w"], mask: Bool[Array, "B L"]) -> Float[Array, "B L h w"]:
    """Return maps of sum 1 for each token, and of zeros for padding. `maps` has no negative."""
    total = jnp.maximum(maps.sum((2, 3), keepdims=True), 1e-12)
    return jnp.where(mask[:, :, None, None], maps / total, 0.0)


def word_map_abilities(denoiser: Denoiser, conditioning: Conditioning) -> dict[str, Callable]:
    """Return {"explain": ...} of a family with one denoiser, {} if it does not attend to tokens."""
    if not (attention := denoiser.attention):
        return {}

    def explain(variables: Variables, inputs, keys):
        """Return word maps float32 [B, L, h, w] of pictures with these captions.

        inputs: "image" uint8 [B, H, W, 3], and "text".

        The pictures are made noisy at each of TIMES, and the attention of the network (a mean over
        layers and heads) is averaged over these times.
        """
        model, frozen, latents = variables.params["model"], variables.frozen, denoiser.latents
        condition = denoiser.encode_text(model, frozen, conditioning.text_of(inputs))
        x0 = latents.encode(frozen.get("first_stage", {}), inputs["image"])

        def at_time(time):
            i, t = time
            noise = draw_normal(derive_keys(keys, i), latents.shape)
            c = denoiser.schedule(t)
            x_t = c.alpha * x0 + c.sigma * noise
            return attention(model, x_t, jnp.full(len(x0), t), condition)

        maps = jax.lax.map(at_time, (jnp.arange(len(TIMES)), jnp.array(TIMES))).mean(0)
        return normalised(maps, condition.mask)

    return {"explain": explain}
