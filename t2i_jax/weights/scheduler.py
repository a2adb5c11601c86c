"""How a published model is sampled, from the scheduler_config.json of diffusers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from t2i_jax.core.registry import did_you_mean
from t2i_jax.diffusion import grids, tables
from t2i_jax.diffusion.schedules import Schedule, rectified
from t2i_jax.weights.scheduler_classes import (
    FLOW_NAMES,
    LEVEL_FIELDS,
    NAMES,
    SCHEDULERS,
    SchedulerClass,
)

KINDS = {"epsilon": "noise", "sample": "x0", "v_prediction": "velocity"}
# With zero terminal SNR, alpha² of the last timestep for samplers that work with sigma / alpha.
TINY_SIGNAL = 2.0**-24
# A timestep this near to a whole number is one: times are float32.
WHOLE = 1e-3


class Scheduler(NamedTuple):
    """How a published model is sampled.

    schedule, kind: of `Denoiser`.
    sampler, options: a name of diffusion.samplers.SAMPLERS, and its arguments after the keys.
    times: (steps, tokens=None) -> times float32 [steps + 1], in NumPy. `tokens` is the number of
        patches of the picture; only a model with a dynamic shift needs it.
    timestep: (t) -> float32 of the shape of t, what the network is told at time t.
    noise_scale: (times) -> the number by which unit noise is multiplied at times[0].
    """

    schedule: Schedule
    kind: str
    sampler: str
    options: dict[str, Any]
    times: Callable[..., np.ndarray]
    timestep: Callable[[Any], Any]
    noise_scale: Callable[[np.ndarray], float]


def read_scheduler(config: Mapping[str, Any], even: bool = False) -> Scheduler:
    """Return how to sample with a scheduler_config.json. Fields that a class lacks are ignored.

    even: of rectified flows, whether steps are equal before the shift, as FLUX's pipeline has them,
        or the last time before 0 is that of the first timestep, as SD3's.

    Raises ValueError for an unknown class, naming the nearest, and for a value of a field that is
    not supported, naming those that are.
    """
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise ValueError(
            f"there is no scheduler {name!r} here: there are {', '.join(SCHEDULERS)}"
            f"{did_you_mean(name, SCHEDULERS)}"
        )
    about = SCHEDULERS[name]
    for field, (default, accepted) in about.only.items():
        _check(name, field, config.get(field, default), accepted)
    settings = {field: config.get(field, default) for field, default in about.fields.items()}
    if about.grid == "flow":
        return _flow(about, settings, even)
    if "algorithm_type" in about.only and config.get("algorithm_type") == "sde-dpmsolver++":
        about = about._replace(sampler="dpmpp_2m_sde")
    return _table(name, about, settings)


def with_sampler(config: Mapping[str, Any], sampler: str) -> dict[str, Any]:
    """Return a scheduler_config.json of the same model for another sampler.

    sampler: a name of NAMES, or, for a rectified flow, of FLOW_NAMES.
    Raises ValueError, naming them, for another name.
    """
    about = SCHEDULERS.get(config.get("_class_name", ""))
    names = FLOW_NAMES if about and about.grid == "flow" else NAMES
    if sampler not in names:
        raise ValueError(
            f"this model has no sampler {sampler!r}: it has {', '.join(names)}"
            f"{did_you_mean(sampler, names)}"
        )
    return {**config, **names[sampler]}


def _check(name: str, field: str, value: Any, accepted: tuple) -> None:
    if value not in accepted:
        raise ValueError(
            f"{name} with {field} {value!r} is not supported: "
            f"{field} can be {' or '.join(map(repr, accepted))}"
        )


def _flow(about: SchedulerClass, settings: dict[str, Any], even: bool) -> Scheduler:
    """Return the scheduler of a rectified flow."""
    count, dynamic = settings["num_train_timesteps"], settings["use_dynamic_shifting"]

    def times(steps, tokens=None):
        factor, last = settings["shift"], 1 / count
        if not dynamic:
            last = factor * last / (1 + (factor - 1) * last)  # the table of times is shifted too
        elif tokens is None:
            raise ValueError("this model shifts its times by the size of the picture: give tokens")
        else:
            few, many = settings["base_image_seq_len"], settings["max_image_seq_len"]
            at_few, at_many = settings["base_shift"], settings["max_shift"]
            factor = grids.dynamic_shift(tokens, few, many, at_few, at_many)
        return grids.flow_times(steps, factor, None if even else last)

    return Scheduler(
        rectified, "velocity", about.sampler, {}, times, lambda t: count * t, lambda times: 1.0
    )


def _table(name: str, about: SchedulerClass, settings: dict[str, Any]) -> Scheduler:
    """Return the scheduler of a model with a table of noise levels."""
    _check(name, "prediction_type", settings["prediction_type"], tuple(KINDS))
    _check(name, "timestep_spacing", settings["timestep_spacing"], grids.SPACINGS)
    if "final_sigmas_type" in settings:
        _check(name, "final_sigmas_type", settings["final_sigmas_type"], ("zero", "sigma_min"))
    if sum(bool(settings.get(field)) for field in LEVEL_FIELDS) > 1:
        raise ValueError(f"{name} can have only one of {', '.join(LEVEL_FIELDS)}")
    signal = _signal(name, about, settings)
    count, schedule = len(signal), tables.table(signal)
    unit = about.grid != "fractions" or settings["timestep_spacing"] == "leading"
    options = {
        field: settings[field]
        for field in ("lower_order_final", "euler_at_final")
        if field in settings
    }
    if about.sampler == "tcd":
        options = {"timesteps": count}
    return Scheduler(
        schedule,
        KINDS[settings["prediction_type"]],
        about.sampler,
        options,
        lambda steps, tokens=None: _times(about, settings, signal, steps),
        _timestep(about, settings, count),
        lambda times: 1.0 if unit else float(schedule(jnp.asarray(times[0])).sigma),
    )


def _signal(name: str, about: SchedulerClass, settings: dict[str, Any]) -> np.ndarray:
    """Return alpha² of each timestep."""
    betas = settings["trained_betas"]
    if betas is None:
        _check(name, "beta_schedule", settings["beta_schedule"], tables.BETAS)
        betas = tables.betas(
            settings["beta_schedule"],
            settings["num_train_timesteps"],
            settings["beta_start"],
            settings["beta_end"],
        )
    signal = tables.signal(np.asarray(betas, np.float64))
    if not settings.get("rescale_betas_zero_snr"):
        return signal
    if settings["prediction_type"] == "epsilon":
        raise ValueError(
            f"{name} with rescale_betas_zero_snr and prediction_type 'epsilon' is not supported: "
            "pure noise does not say what the picture is; the model should predict 'v_prediction'"
        )
    works_with_ratios = about.grid in ("fractions", "one_more")
    return tables.zero_terminal_snr(signal, TINY_SIGNAL if works_with_ratios else 0.0)


def _levels(settings: dict[str, Any]) -> str | None:
    """Return the name of the noise levels, of grids.LEVELS, or None for evenly spaced timesteps."""
    return next((name for field, name in LEVEL_FIELDS.items() if settings.get(field)), None)


def _times(about: SchedulerClass, settings: dict[str, Any], signal: np.ndarray, steps: int):
    """Return the time grid of a model with a table of noise levels."""
    count = len(signal)
    if about.grid == "distilled":
        timesteps = grids.distilled(steps, count, settings["original_inference_steps"])
        # TCD stays on the table, whose last point is timestep 0.
        return grids.times_of_timesteps(timesteps, count, 0 if about.sampler == "tcd" else -1)
    to_data = settings.get("final_sigmas_type", "zero") == "zero"
    end = -1 if to_data and settings.get("set_alpha_to_one", True) else 0
    spacing, offset = settings["timestep_spacing"], settings["steps_offset"]
    timesteps = grids.spaced(spacing, steps, count, offset, about.grid == "one_more")
    levels = _levels(settings)
    if levels is None:
        whole = about.grid != "fractions"
        return grids.times_of_timesteps(np.round(timesteps) if whole else timesteps, count, end)
    of_table = tables.ratios(signal)
    ends = of_table[[-1, 0]]
    if about.grid == "fractions":
        ends = np.interp(timesteps[[0, -1]], np.arange(count), of_table)
    return grids.times_of_ratios(grids.noise_levels(levels, steps, *ends), signal, end)


def _timestep(about: SchedulerClass, settings: dict[str, Any], count: int) -> Callable:
    """Return the function from time to what the network is told: most classes tell it integers."""
    levels = _levels(settings)
    cosine = about.sampler.startswith("dpmpp") and settings["beta_schedule"] == "squaredcos_cap_v2"
    truncated = levels in ("exponential", "beta") or (levels is not None and cosine)

    def timestep(t):
        fraction = count * t - 1.0
        nearest = jnp.round(fraction)
        if about.grid != "fractions":
            return jnp.floor(fraction + WHOLE) if truncated else nearest
        return jnp.where(jnp.abs(fraction - nearest) < WHOLE, nearest, fraction)

    return timestep
