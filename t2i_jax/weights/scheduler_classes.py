"""The scheduler classes of diffusers: which sampler each is, and its fields.

A class is described by what is particular to it; scheduler.py reads a config with it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from t2i_jax.diffusion.grids import LEVELS

# {field: name of grids.noise_levels}
LEVEL_FIELDS = {f"use_{name}_sigmas": name for name in LEVELS}


class SchedulerClass(NamedTuple):
    """A class of schedulers.

    sampler: a name of diffusion.samplers.SAMPLERS.
    grid: how it chooses timesteps. "whole": rounded. "fractions": not rounded, and noise levels
        span the chosen timesteps; its samplers work with sigma / alpha. "one_more": rounded, from
        one more timestep, and noise levels span the whole table. "distilled": among those of a
        teacher. "flow": times of a rectified flow.
    fields: {field: default} of those that are read.
    only: {field: (default, accepted values)} of those that must have such a value.
    """

    sampler: str
    grid: str
    fields: Mapping[str, Any]
    only: Mapping[str, tuple[Any, tuple]] = {}


def _table(spacing: str) -> dict[str, Any]:
    """Return the fields of every class with a table of noise levels."""
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "trained_betas": None,
        "prediction_type": "epsilon",
        "timestep_spacing": spacing,
        "steps_offset": 0,
    }


def _only(*values: Any) -> tuple[Any, tuple]:
    """Return the entry of a field whose default is the first of the accepted values."""
    return values[0], values


_NO_LEVELS = dict.fromkeys(LEVEL_FIELDS, False)
_SMALL_BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
_ZERO_SNR = {"rescale_betas_zero_snr": False}
_LEVELS_AND_END = {**_NO_LEVELS, **_ZERO_SNR, "final_sigmas_type": "zero"}
_ENDS = {"sigma_min": _only(None), "sigma_max": _only(None)}
_NOT_CLIPPED = {"clip_sample": (True, (False,)), "thresholding": _only(False)}
_SOLVER = {
    "solver_order": _only(2),
    "thresholding": _only(False),
    "use_flow_sigmas": _only(False),
    "use_dynamic_shifting": _only(False),
}

_DDIM = SchedulerClass(
    "ddim", "whole", {**_table("leading"), **_ZERO_SNR, "set_alpha_to_one": True}, _NOT_CLIPPED
)
_DDPM = SchedulerClass(
    "ddpm",
    "whole",
    {**_table("leading"), **_ZERO_SNR},
    {"variance_type": _only("fixed_small"), **_NOT_CLIPPED},
)
_PNDM = SchedulerClass(
    "plms",
    "whole",
    {**_table("leading"), "set_alpha_to_one": False},
    {"skip_prk_steps": (False, (True,)), "prediction_type": _only("epsilon")},
)
_EULER = SchedulerClass(
    "ddim",
    "fractions",
    {**_table("linspace"), **_LEVELS_AND_END},
    {"interpolation_type": _only("linear"), "timestep_type": _only("discrete"), **_ENDS},
)
_EULER_ANCESTRAL = SchedulerClass("ddpm", "fractions", {**_table("linspace"), **_ZERO_SNR})
_LMS = SchedulerClass("lms", "fractions", {**_table("linspace"), **_NO_LEVELS})
_HEUN = SchedulerClass(
    "heun_sigma",
    "fractions",
    {**_table("linspace"), **_SMALL_BETAS, **_NO_LEVELS},
    {"clip_sample": _only(False)},
)
_DPM_SOLVER = SchedulerClass(
    "dpmpp_2m",
    "one_more",
    {
        **_table("linspace"),
        **_LEVELS_AND_END,
        "lower_order_final": True,
        "euler_at_final": False,
    },
    {
        "algorithm_type": _only("dpmsolver++", "sde-dpmsolver++"),
        # Those of other classes count as the default.
        "solver_type": _only("midpoint", "bh1", "bh2", "logrho"),
        "use_lu_lambdas": _only(False),
        "lambda_min_clipped": _only(-float("inf")),
        "variance_type": _only(None),
        **_SOLVER,
    },
)
_UNIPC = SchedulerClass(
    "unipc",
    "one_more",
    {**_table("linspace"), **_LEVELS_AND_END},
    {
        "solver_type": _only("bh2", "midpoint", "heun", "logrho"),
        "predict_x0": _only(True),
        "lower_order_final": _only(True),
        "disable_corrector": _only([]),
        "solver_p": _only(None),
        **_SOLVER,
        **_ENDS,
    },
)
_LCM = SchedulerClass(
    "lcm",
    "distilled",
    {
        **_table("leading"),
        **_SMALL_BETAS,
        **_ZERO_SNR,
        "beta_schedule": "scaled_linear",
        "original_inference_steps": 50,
    },
    {
        "clip_sample": _only(False),
        "thresholding": _only(False),
        "timestep_scaling": _only(10.0),
    },
)
_FLOW = SchedulerClass(
    "euler",
    "flow",
    {
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
    {
        "invert_sigmas": _only(False),
        "shift_terminal": _only(None),
        "time_shift_type": _only("exponential"),
        "stochastic_sampling": _only(False),
        **{field: _only(False, None) for field in LEVEL_FIELDS},
    },
)

SCHEDULERS = {
    "DDIMScheduler": _DDIM,
    "DDPMScheduler": _DDPM,
    "PNDMScheduler": _PNDM,
    "EulerDiscreteScheduler": _EULER,
    "EulerAncestralDiscreteScheduler": _EULER_ANCESTRAL,
    "HeunDiscreteScheduler": _HEUN,
    "LMSDiscreteScheduler": SchedulerClass(
        "lms", "fractions", {**_table("linspace"), **_NO_LEVELS}
    ),
    "DPMSolverMultistepScheduler": _DPM_SOLVER,
    "UniPCMultistepScheduler": _UNIPC,
    "LCMScheduler": _LCM,
    "TCDScheduler": _LCM._replace(sampler="tcd"),
    "FlowMatchEulerDiscreteScheduler": _FLOW,
    "FlowMatchHeunDiscreteScheduler": _FLOW._replace(sampler="heun"),
}

# The usual names of samplers, and what to change in a config to draw with them: of models with a
# table of noise levels, and of rectified flows.
NAMES = {
    "ddim": {"_class_name": "DDIMScheduler", "clip_sample": False},
    "ddpm": {"_class_name": "DDPMScheduler", "clip_sample": False},
    "pndm": {"_class_name": "PNDMScheduler", "skip_prk_steps": True},
    "euler": {"_class_name": "EulerDiscreteScheduler"},
    "euler_ancestral": {"_class_name": "EulerAncestralDiscreteScheduler"},
    "heun": {"_class_name": "HeunDiscreteScheduler"},
    "lms": {"_class_name": "LMSDiscreteScheduler"},
    "dpmpp_2m": {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver++"},
    "dpmpp_2m_sde": {
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "sde-dpmsolver++",
    },
    "unipc": {"_class_name": "UniPCMultistepScheduler"},
    "lcm": {"_class_name": "LCMScheduler"},
    "tcd": {"_class_name": "TCDScheduler"},
}
FLOW_NAMES = {
    "euler": {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    "heun": {"_class_name": "FlowMatchHeunDiscreteScheduler"},
}
