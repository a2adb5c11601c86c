"""What every family with one denoiser can draw: guided prediction, and the ability `sample`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t2i_jax.core.denoiser import Denoiser
from t2i_jax.core.family import Variables
from t2i_jax.core.fields import Field
from t2i_jax.core.progress import WATCHED, tell
from t2i_jax.core.random import draw_normal, split_keys
from t2i_jax.core.text import TextCondition
from t2i_jax.diffusion.guidance import combine, scale_at
from t2i_jax.diffusion.parameterizations import to_noise, to_x0
from t2i_jax.families.conditioning import Conditioning, guidance_field, join

NEGATIVE = "negative_prompt"  # the name of a setting, and of an ability's input
GUIDANCE_FIELDS = {
    "guidance": guidance_field(2.0),
    "rescale": Field(0.0, "how far guided predictions get the spread of unguided ones", 0.0, 1.0),
    "interval_low": Field(0.0, "guidance applies from this time on", 0.0, 1.0),
    "interval_high": Field(1.0, "guidance applies up to this time; 1 is noise", 0.0, 1.0),
    NEGATIVE: Field("", "what guidance leads away from: a caption; empty is the empty caption"),
}


class Plan(NamedTuple):
    """How pictures are drawn with one choice of settings.

    denoiser: its schedule is that of the sampler, and `latents.shape` that of one example.
    sampler: (predict, x, times, schedule, keys) -> x, as those of diffusion/samplers.
    times: decreasing times [steps + 1], from noise to data.
    noise_scale: by which unit noise is multiplied at times[0].
    guidance: the settings of `guided_predict`, or None for a network that is called once a step,
        with the captions alone.
    """

    denoiser: Denoiser
    sampler: Callable
    times: Any
    noise_scale: float
    guidance: Mapping[str, Any] | None


def make_sample(make_plan: Callable[..., Plan], conditioning: Conditioning) -> Callable:
    """Return the ability `sample`, without `candidates`.

    make_plan: (**settings) -> Plan, with the settings of the ability.
    """

    def sample(variables: Variables, inputs, keys, **settings):
        """Draw pictures uint8 [B, H, W, 3] by classifier-free guidance.

        inputs: "text"; "negative_prompt" in the same form, in place of the null text; and "noise"
            [B, *latents], of unit variance, in place of what the keys give.
        """
        plan = make_plan(**settings)
        start_keys, step_keys = split_keys(keys, 2)
        predict = predict_of(plan, conditioning, variables, inputs)
        predict = telling(predict, plan, variables, inputs)
        x = plan.noise_scale * unit_noise(plan, inputs, start_keys)
        x = plan.sampler(predict, x, plan.times, plan.denoiser.schedule, step_keys)
        return plan.denoiser.latents.decode(variables.frozen.get("first_stage", {}), x)

    return sample


def unit_noise(plan: Plan, inputs: Mapping, keys) -> Any:
    """Return noise of unit variance [B, *latents]: inputs["noise"], or drawn with the keys [B]."""
    if "noise" in inputs:
        return inputs["noise"]
    return draw_normal(keys, plan.denoiser.latents.shape)


def predict_of(plan: Plan, conditioning: Conditioning, variables: Variables, inputs) -> Callable:
    """Return predict(x, t) -> (x0, noise) for the captions of an ability's inputs."""
    model, frozen, denoiser = variables.params["model"], variables.frozen, plan.denoiser
    if denoiser.bind:
        denoiser = denoiser.bind(frozen["first_stage"])
    if denoiser.see:
        denoiser = denoiser.see(frozen["first_stage"], inputs)
    if plan.guidance is None:
        condition = denoiser.encode_text(model, frozen, conditioning.text_of(inputs))
        return plain_predict(denoiser, model, condition)
    text = conditioning.text_of(inputs)
    if NEGATIVE in inputs:
        both = join(text, conditioning.text_of({"text": inputs[NEGATIVE]}))
    else:
        both = conditioning.with_null(text, frozen)
    condition = denoiser.encode_text(model, frozen, both)  # once for all steps
    return guided_predict(denoiser, model, condition, **plan.guidance)


def telling(predict: Callable, plan: Plan, variables: Variables, inputs: Mapping) -> Callable:
    """Return `predict`, which also tells who watches how many steps are done (core/progress.py)."""
    if WATCHED not in inputs:
        return predict
    stage, times = variables.frozen.get("first_stage", {}), jnp.asarray(plan.times)

    def predict_and_tell(x, t):
        x0, noise = predict(x, t)
        step = jnp.minimum((times >= t).sum(), len(times) - 1)
        tell(inputs, step, len(times) - 1, lambda: plan.denoiser.latents.decode(stage, x0))
        return x0, noise

    return predict_and_tell


def plain_predict(denoiser: Denoiser, params, condition: TextCondition) -> Callable:
    """Return predict(x [B, ...], t []) -> (x0, noise), without guidance.

    condition: of B captions.
    """

    def predict(x, t):
        output = denoiser.predict(params, x, jnp.broadcast_to(t, len(x)), condition)
        return _solve(denoiser, output, x, t)

    return predict


def guided_predict(
    denoiser: Denoiser,
    params,
    condition: TextCondition,
    *,
    guidance,
    rescale=0.0,
    interval_low=0.0,
    interval_high=1.0,
) -> Callable:
    """Return predict(x [B, ...], t []) -> (x0, noise), as the samplers of diffusion/ take it.

    condition: of `Conditioning.with_null`: that of B captions, then of B null texts. Both halves
        go through the network in one call.
    guidance, rescale, interval_low, interval_high: see diffusion/guidance.py.
    """

    def predict(x, t):
        times = jnp.broadcast_to(t, 2 * len(x))
        output = denoiser.predict(params, jnp.concatenate([x, x]), times, condition)
        scale = scale_at(t, guidance, interval_low, interval_high)

        def guide(both):
            cond, uncond = jnp.split(both, 2)
            return combine(cond, uncond, scale, rescale)

        return _solve(denoiser, jax.tree.map(guide, output), x, t)

    return predict


def _solve(denoiser: Denoiser, output, x, t) -> tuple[Any, Any]:
    """Return (x0, noise) from the network's output at x and time t."""
    output, c = denoiser.mean(output) if denoiser.mean else output, denoiser.schedule(t)
    return to_x0(denoiser.kind, output, x, c), to_noise(denoiser.kind, output, x, c)


def check_interval(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if the interval of guidance in the section `sample` is empty."""
    if settings["interval_low"] >= settings["interval_high"]:
        raise ValueError(
            f"sample.interval_low is {settings['interval_low']}: it must be less than "
            f"sample.interval_high, {settings['interval_high']}"
        )
