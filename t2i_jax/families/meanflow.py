"""MeanFlow: a network of average velocities, which draws a picture in one call.

Source: arXiv 2505.13447; the equations are numbered as there. Noise and data are joined by straight
lines, z_t = (1 - t) x0 + t noise. Flow matching learns the velocity v(z_t, t) at one time. This
family learns its average over the times from r to t (equation 3),

    u(z_t, r, t) = 1 / (t - r) * integral from r to t of v(z_s, s) ds,

so that one step of any length is exact: z_r = z_t - (t - r) u(z_t, r, t) (equation 12). Multiplied
by t - r and differentiated by t, the definition is the MeanFlow identity (equation 6), which has no
integral and is what the network is trained for:

    u(z_t, r, t) = v(z_t, t) - (t - r) du/dt, with du/dt = v du/dz + partial du/dt (equation 8).

The network is a denoiser (core/denoiser.py) that `TextCondition.vector` tells t - r. It may predict
the average velocity itself, or the x0 that gives it at time t (arXiv 2601.22158).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, Key

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Context, Family, Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.random import draw_normal, split_keys
from t2i_jax.core.text import TextCondition
from t2i_jax.core.types import Number
from t2i_jax.diffusion.parameterizations import convert
from t2i_jax.diffusion.samplers import time_grid
from t2i_jax.families import diffusion
from t2i_jax.families.conditioning import Conditioning, guidance_field, make_conditioning
from t2i_jax.families.config_fields import read_section
from t2i_jax.families.first_stage import batch_latents
from t2i_jax.families.reranking import CANDIDATES_FIELD, with_candidates
from t2i_jax.models.fused_attention import no_fused_attention
from t2i_jax.models.layers import sine_time

INTERVAL_CHANNELS = 64  # of the sine embedding of t - r
# Networks embed a time t by sines and cosines of up to 1000 t radians, which then dominate du/dt.
# With times that are scaled by this, the fastest turn by 20 radians.
TIME_SCALE = 0.02
# Not the schedule, which has to be of straight lines, nor the weighting, which is adaptive here.
DIFFUSION_FIELDS = {
    name: diffusion.DIFFUSION_FIELDS[name]
    for name in ("parameterization", "time", "mean", "std", "shift")
}
MEANFLOW_FIELDS = {
    "instant": Field(0.75, "share of the examples with r = t, which is flow matching", 0.0, 1.0),
    "guidance": guidance_field(2.0),
    "kappa": Field(0.5, "how much of the guided target the network itself gives", 0.0, 0.99),
    "power": Field(1.0, "0: squared error; 0.5: about its root; 1: about its logarithm", 0.0),
}
SAMPLE_FIELDS = {
    "steps": Field(1, "calls of the network", 1),
    "candidates": CANDIDATES_FIELD,
}
MIN_ERROR = 1e-3  # c of equation 22: smaller errors count less and less


def fields(config) -> dict[str, dict[str, Field]]:
    """Return the config fields of this family."""
    return {
        "model": diffusion.fields(config)["model"],
        "diffusion": DIFFUSION_FIELDS,
        "meanflow": MEANFLOW_FIELDS,
        "sample": SAMPLE_FIELDS,
    }


def make(config, axis_name=None) -> Family:
    """Return the family; its fields are those of `fields`, text, first_stage and reranker.

    Raises ValueError for an unknown name or field of these.
    """
    del axis_name  # nothing here compares examples
    read_section(config, "diffusion", DIFFUSION_FIELDS)  # refuses a schedule or a weighting
    settings = read_section(config, "meanflow", MEANFLOW_FIELDS)
    denoiser = diffusion.make_denoiser(config, vector=INTERVAL_CHANNELS)
    conditioning = make_conditioning(config)

    def loss(params, ctx: Context):
        """Return the squared error of the MeanFlow identity, weighted for its size (equation 22).

        With a power of 1 the weighted error is near 1, however good the network is. So there is no
        weight in validation, and the metric `error` has none.
        """
        model = params["model"]
        drop_keys, dropout_keys, time_keys, noise_keys, r_keys = split_keys(ctx.keys, 5)
        keys = dropout_keys if ctx.train else None
        text = conditioning.training_text(ctx, drop_keys)
        x0 = batch_latents(denoiser.latents, ctx)
        noise = draw_normal(noise_keys, x0.shape[1:])
        r, t = draw_interval(denoiser, time_keys, r_keys, settings["instant"])
        c = denoiser.schedule(like_pictures(t))
        z = c.alpha * x0 + c.sigma * noise

        both = denoiser.encode_text(model, ctx.frozen, conditioning.with_null(text, ctx.frozen))
        u_of_both = average_velocity(denoiser, model, both)
        own = u_of_both(*(jnp.concatenate([x, x]) for x in (z, t, t)))
        velocity = guided_velocity(noise - x0, own, settings["guidance"], settings["kappa"])

        condition = denoiser.encode_text(model, ctx.frozen, text, keys)
        u = average_velocity(denoiser, model, condition, keys)
        average, target = meanflow_target(u, z, r, t, velocity)
        error = jnp.square(average - target).mean((1, 2, 3))
        power = settings["power"] if ctx.train else 0.0
        weight = stop_gradient(error + MIN_ERROR) ** -power
        return weight * error, (ctx.extra, {"error": error})

    return Family(
        losses={"model": loss},
        abilities={"sample": with_candidates(make_sample(denoiser, conditioning), config)},
        settings={"sample": read_section(config, "sample", SAMPLE_FIELDS)},
        static=("steps", "candidates"),
        **diffusion.family_parts(config, denoiser, conditioning),
    )


def make_sample(denoiser: Denoiser, conditioning: Conditioning) -> Callable:
    """Return the ability `sample`, without `candidates`."""

    def sample(variables: Variables, inputs, keys, *, steps):
        """Draw pictures uint8 [B, H, W, 3] in `steps` calls of the network."""
        model, frozen = variables.params["model"], variables.frozen
        condition = denoiser.encode_text(model, frozen, conditioning.text_of(inputs))
        u = average_velocity(denoiser, model, condition)
        z = draw_normal(keys, denoiser.latents.shape)
        return denoiser.latents.decode(
            frozen.get("first_stage", {}), follow(u, z, time_grid(steps))
        )

    return sample


def average_velocity(
    denoiser: Denoiser, params, condition: TextCondition, keys: Key[Array, "B"] | None = None
) -> Callable:
    """Return u(z [B, ...], r [B], t [B]) -> float32 [B, ...]: what the network predicts.

    keys: for dropout.
    """

    def u(z, r, t):
        interval = sine_time(TIME_SCALE * (t - r), INTERVAL_CHANNELS)
        timed = condition._replace(vector=interval)
        output = denoiser.predict(params, z, TIME_SCALE * t, timed, keys)
        return convert(denoiser.kind, "velocity", output, z, denoiser.schedule(like_pictures(t)))

    return u


def draw_interval(
    denoiser: Denoiser, time_keys: Key[Array, "B"], r_keys: Key[Array, "B"], instant: Number
) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
    """Draw times r <= t for training: two of `denoiser.draw_times`, or with r = t just one.

    instant: the probability of r = t.
    """
    same_keys, r_keys = split_keys(r_keys, 2)
    same = jax.vmap(lambda key: jax.random.bernoulli(key, instant))(same_keys)
    first = denoiser.draw_times(time_keys)
    second = jnp.where(same, first, denoiser.draw_times(r_keys))
    return jnp.minimum(first, second), jnp.maximum(first, second)


def guided_velocity(
    velocity: Float[Array, "B *rest"],
    own: Float[Array, "twice_B *rest"],
    guidance: Number,
    kappa: Number,
) -> Float[Array, "B *rest"]:
    """Return omega velocity + kappa u(z, t, t | text) + (1 - omega - kappa) u(z, t, t).

    This is equation 21. A network that agrees with it is already guided: on average over the noise,
    u(z, t, t | text) is then guidance v(z, t | text) + (1 - guidance) v(z, t), whatever kappa is,
    since `guidance` is omega / (1 - kappa). Of the null text it is v(z, t) itself.

    velocity: noise - x0.
    own: the network's u(z, t, t) for the texts of `Conditioning.with_null`.
    """
    cond, uncond = jnp.split(own, 2)
    omega = guidance * (1.0 - kappa)
    return omega * velocity + kappa * cond + (1.0 - omega - kappa) * uncond


def meanflow_target(
    u: Callable,
    z: Float[Array, "B *rest"],
    r: Float[Array, "B"],
    t: Float[Array, "B"],
    velocity: Float[Array, "B *rest"],
) -> tuple[Float[Array, "B *rest"], Float[Array, "B *rest"]]:
    """Return u(z, r, t) and its target, velocity - (t - r) du/dt (equation 10).

    The derivative is that along (dz, dr, dt) = (velocity, 0, 1). No gradient passes the target.
    """
    tangents = (velocity, jnp.zeros_like(r), jnp.ones_like(t))
    with no_fused_attention():
        average, slope = jax.jvp(u, (z, r, t), tangents)
    return average, stop_gradient(velocity - like_pictures(t - r) * slope)


def follow(
    u: Callable, z: Float[Array, "B *rest"], times: Float[Array, "T"]
) -> Float[Array, "B *rest"]:
    """Return z at the last of `times`, from z at the first: z_r = z_t - (t - r) u(z_t, r, t)."""

    def step(z, interval):
        t, r = interval
        return z - (t - r) * u(z, jnp.broadcast_to(r, len(z)), jnp.broadcast_to(t, len(z))), None

    return jax.lax.scan(step, z, (times[:-1], times[1:]))[0]


def like_pictures(numbers: Float[Array, "B"]) -> Float[Array, "B 1 1 1"]:
    """Return one number per example in a shape that broadcasts against pictures."""
    return numbers[:, None, None, None]
