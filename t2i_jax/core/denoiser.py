"""The contract of a denoiser: a network that diffusion models draw with, and how it is called."""

from collections.abc import Callable
from typing import Any, NamedTuple

from t2i_jax.core.first_stage import Latents
from t2i_jax.core.text import TextCondition


class Denoiser(NamedTuple):
    """A conditional network that takes a noisy example to a prediction of the clean one.

    Whatever removes noise builds on it: losses, samplers, guidance, editing, distillation. An
    example is a picture in [-1, 1] or the latents of one, float [*shape], where `shape` is that of
    `latents`. A time t is in [0, 1]; t = 1 is noise. `params` is {"text", "net"}: the parameters of
    the text encoder and of the network, which make up the player "model" of a family.

    init: (rng, batch) -> params.
    encode_text: (params, frozen, text, keys=None) -> TextCondition. Replace its `vector` to
        condition the network on other numbers, if `make_denoiser` was told how many.
    predict: (params, x_t [B, *shape], t [B], condition, keys=None) -> float32 [B, *shape], the
        network's raw output, unguided. It can be differentiated with respect to x_t and t, in
        forward mode too (under `models.fused_attention.no_fused_attention`).
        keys: [B], for dropout in training.
    schedule: (t) -> diffusion.schedules.Coefficients c, of the shape of t:
        x_t = c.alpha x0 + c.sigma noise.
    kind: what `predict` gives, one of diffusion.parameterizations.KINDS. `to_x0(kind, output, x_t,
        c)` and `to_noise(...)` of that file turn it into the clean example and the noise.
    draw_times: (keys [B]) -> times [B] for training.
    latents: how pictures become examples, and back.
    see: of a network for inpainting, whose input is also a mask and what is around it: (frozen
        first stage, the inputs of an ability) -> the Denoiser whose `predict` is given these. Where
        the inputs have no mask, everything is to be drawn. None for other networks.
    mean: of a network that does not give what `kind` says but probabilities: (output) -> the mean
        of x0 under them. Outputs are guided before. None for other networks.
    attention: (params, x_t, t, condition) -> float32 [B, L, h, w], which cells belong to each token
        (models/word_attention.py). None for a network that does not attend to the tokens.
    bind: of a network that needs the frozen first stage to draw: (frozen first stage) -> the
        Denoiser that has it. None for other networks.
    """

    init: Callable[..., dict[str, Any]]
    encode_text: Callable[..., TextCondition]
    predict: Callable[..., Any]
    schedule: Callable[..., Any]
    kind: str
    draw_times: Callable[..., Any]
    latents: Latents
    see: Callable[..., Any] | None = None
    mean: Callable[..., Any] | None = None
    attention: Callable[..., Any] | None = None
    bind: "Callable[..., Denoiser] | None" = None
