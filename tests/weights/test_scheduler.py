"""Published scheduler configs, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.diffusion.samplers import SAMPLERS
from t2i_jax.weights.scheduler import read_scheduler, with_sampler
from t2i_jax.weights.scheduler_classes import FLOW_NAMES, NAMES, SCHEDULERS

SD_1_5 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD_2_1 = {
    **SD_1_5,
    "_class_name": "DDIMScheduler",
    "prediction_type": "v_prediction",
}
SDXL = {
    **SD_1_5,
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
SD_3 = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "shift": 3.0,
}
FLUX = {
    **SD_3,
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "use_dynamic_shifting": True,
}


def test_stable_diffusion_1():
    made = read_scheduler(SD_1_5)
    assert (made.sampler, made.kind) == ("plms", "noise")
    times = made.times(50)
    np.testing.assert_allclose(times[[0, 1, 49, 50]], [0.982, 0.962, 0.002, 0.001], rtol=1e-6)
    np.testing.assert_array_equal(made.timestep(times[:3]), [981, 961, 941])
    assert made.noise_scale(times) == 1.0
    # The product of 1 - beta: 0.0047 at the end, and 1 - 0.00085 at the start.
    c = made.schedule(jnp.array([1.0, 0.001]))
    np.testing.assert_allclose(c.alpha**2, [0.004660, 1 - 0.00085], rtol=1e-3)


def test_stable_diffusion_2_and_xl():
    made = read_scheduler(SD_2_1)
    assert (made.sampler, made.kind, made.options) == ("ddim", "velocity", {})
    made = read_scheduler(SDXL)
    assert (made.sampler, made.kind) == ("ddim", "noise")
    times = made.times(4)
    np.testing.assert_array_equal(made.timestep(times[:4]), [751, 501, 251, 1])
    assert times[-1] == 0 and made.noise_scale(times) == 1.0
    # From 1000 on, the start is x0 + sigma noise without x0.
    trailing = read_scheduler({**SDXL, "timestep_spacing": "trailing"})
    sigma = np.sqrt(1 - 0.004660)
    np.testing.assert_allclose(trailing.noise_scale(trailing.times(4)), sigma, rtol=1e-5)


def test_rectified_flows():
    made = read_scheduler(SD_3)
    assert (made.sampler, made.kind) == ("euler", "velocity")
    times = made.times(28)
    last = 3 * 0.001 / (1 + 2 * 0.001)
    last = 3 * last / (1 + 2 * last)
    np.testing.assert_allclose(times[[0, 27, 28]], [1, last, 0], rtol=1e-6)
    np.testing.assert_allclose(made.timestep(jnp.array(0.5)), 500)
    assert made.noise_scale(times) == 1.0

    made = read_scheduler(FLUX, even=True)
    middle = np.exp(1.15) / (np.exp(1.15) + 1)
    np.testing.assert_allclose(made.times(2, 4096), [1, middle, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="give tokens"):
        made.times(2)
    np.testing.assert_allclose(
        read_scheduler({**SD_3, "shift": 1.0}, even=True).times(4), [1, 0.75, 0.5, 0.25, 0]
    )


def test_zero_terminal_snr():
    config = {**SD_2_1, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    end = read_scheduler(config).schedule(jnp.array(1.0))
    assert end.alpha < 1e-7 and end.sigma > 1 - 1e-6
    euler = read_scheduler(with_sampler(config, "euler"))
    np.testing.assert_allclose(euler.schedule(jnp.array(1.0)).alpha, 2.0**-12, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_any_sampler_of_a_model(name):
    made = read_scheduler(with_sampler(SDXL, name))
    assert made.sampler in SAMPLERS and made.kind == "noise"
    times = made.times(5)
    assert len(times) == 6 and times[0] <= 1 and times[-1] <= 0.001 and (np.diff(times) < 0).all()
    assert set(FLOW_NAMES) <= set(NAMES)
    assert read_scheduler(with_sampler(SD_3, "heun")).sampler == "heun"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "EulerDiscretScheduler"}, "did you mean 'EulerDiscreteScheduler'"),
        ({"_class_name": None}, "there is no scheduler None here"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' is not supported.*'linear' or"),
        ({"prediction_type": "flow"}, "prediction_type 'flow' is not supported.*'epsilon' or"),
        ({"timestep_spacing": "even"}, "timestep_spacing 'even' is not supported.*'leading' or"),
        ({"timestep_type": "continuous"}, "timestep_type can be 'discrete'"),
        ({"final_sigmas_type": "one"}, "final_sigmas_type can be 'zero' or 'sigma_min'"),
        ({"use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of use_karras_sigmas"),
        ({"rescale_betas_zero_snr": True}, "zero_snr and prediction_type 'epsilon'.*v_prediction"),
        (
            {"_class_name": "DDIMScheduler", "clip_sample": True},
            "clip_sample True is not",
        ),
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": False}, "skip_prk_steps can be True"),
        ({"_class_name": "UniPCMultistepScheduler", "solver_order": 3}, "solver_order can be 2"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        read_scheduler({**SDXL, **fields})


def test_refused_samplers_and_steps():
    with pytest.raises(ValueError, match=r"'unipcc'.*did you mean 'unipc'"):
        with_sampler(SDXL, "unipcc")
    with pytest.raises(ValueError, match="no sampler 'ddim': it has euler, heun"):
        with_sampler(SD_3, "ddim")
    with pytest.raises(ValueError, match="invert_sigmas True is not supported"):
        read_scheduler({**SD_3, "invert_sigmas": True})
    with pytest.raises(ValueError, match="distilled from 50 steps takes 1 to 50, not 51"):
        read_scheduler(with_sampler(SDXL, "lcm")).times(51)
    for name in SCHEDULERS:
        flow = {"clip_sample": False, "skip_prk_steps": True}
        with pytest.raises(ValueError, match="not 0"):
            read_scheduler({**flow, "_class_name": name}).times(0)
