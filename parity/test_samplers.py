"""Samplers, time grids and scheduler configs against the schedulers of diffusers.

A small fixed non-linear network is sampled by both, from the same noise, with the same fresh noise.
"""

import importlib

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from t2i_jax.diffusion.parameterizations import to_noise, to_x0
from t2i_jax.diffusion.samplers import make_sampler
from t2i_jax.diffusion.samplers.fresh_noise import fresh_noise
from t2i_jax.weights.scheduler import read_scheduler

SHAPE = (2, 4, 3, 3)  # of PyTorch, [B, C, H, W]; the network treats an example as a vector
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TOLERANCE = 1e-4  # of the output's scale
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(36, 36)).astype(np.float32) / 6
PHASE = RANDOM.normal(size=36).astype(np.float32)
NOISE = RANDOM.normal(size=SHAPE).astype(np.float32)


def network(x, timestep, like):
    """Compute the toy network in NumPy's, JAX's or PyTorch's functions, by `like`."""
    flat = x.reshape(len(x), 36)
    out = like.tanh(flat @ WEIGHTS_OF[like] + 2 * like.sin(timestep / 150 + PHASE_OF[like]))
    return (0.9 * out + 0.3 * flat).reshape(x.shape)


WEIGHTS_OF = {jnp: WEIGHTS, torch: torch.from_numpy(WEIGHTS)}
PHASE_OF = {jnp: PHASE, torch: torch.from_numpy(PHASE)}


def ours(config, steps, keys, **options):
    made = read_scheduler(config, even=options.pop("even", False))
    times = made.times(steps, options.pop("tokens", None))
    assert len(times) == steps + 1 and times.dtype == np.float32 and (np.diff(times) <= 0).all()

    def predict(x, t):
        output, c = network(x, made.timestep(t), jnp), made.schedule(t)
        return to_x0(made.kind, output, x, c), to_noise(made.kind, output, x, c)

    sampler, options = make_sampler(made.sampler), {**made.options, **options}
    return jax.jit(
        lambda x: sampler(predict, x, jnp.asarray(times), made.schedule, keys, **options)
    )(made.noise_scale(times) * NOISE)


def theirs(config, steps, keys, monkeypatch, mu=None, sigmas=None, **options):
    """Sample with diffusers; fresh noise is ours."""
    cls = getattr(diffusers, config["_class_name"])
    module = importlib.import_module(cls.__module__)
    if hasattr(module, "randn_tensor"):
        drawn = iter(
            torch.from_numpy(np.array(fresh_noise(keys, i, jnp.asarray(NOISE))))
            for i in range(steps)
        )
        monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(drawn))
    scheduler = cls.from_config(config)
    extra = {} if mu is None else {"mu": mu}
    if sigmas is None:
        scheduler.set_timesteps(steps, **extra)
    else:
        scheduler.set_timesteps(sigmas=sigmas, **extra)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # it cannot tell where it is by a timestep that occurs twice
    if scheduler.timesteps[0] == 998:
        # It is 998.9999997 there, which classes that truncate timesteps make 998.
        scheduler.timesteps[0] = 999
    x = torch.from_numpy(NOISE) * getattr(scheduler, "init_noise_sigma", 1.0)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            scaled = x
            if hasattr(scheduler, "scale_model_input"):
                scaled = scheduler.scale_model_input(x, timestep)
            output = network(scaled, timestep.float(), torch)
            x = scheduler.step(output, timestep, x, **options).prev_sample
    last = getattr(scheduler, "sigmas", torch.zeros(1))[-1]
    # A variance-exploding sample that ends above noise level 0 is x / alpha.
    if hasattr(scheduler, "is_scale_input_called"):
        x = x / (1 + last**2) ** 0.5
    return x.numpy()


def compare(config, steps, monkeypatch, options=None, ours_only=None, theirs_only=None):
    options, keys = options or {}, jax.random.split(jax.random.key(1), SHAPE[0])
    expected = theirs(config, steps, keys, monkeypatch, **options, **(theirs_only or {}))
    got = ours(config, steps, keys, **options, **(ours_only or {}))
    scale = np.abs(expected).max()
    assert np.std(expected) > 0.1 * scale and np.isfinite(expected).all()
    difference = np.abs(got - expected).max() / scale
    assert difference < TOLERANCE
    return got


V = {"prediction_type": "v_prediction"}
KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
TRAILING, LEADING = ({"timestep_spacing": name} for name in ("trailing", "leading"))
ZERO_SNR = {**V, **TRAILING, "rescale_betas_zero_snr": True}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
STABLE_DIFFUSION = {"steps_offset": 1, "set_alpha_to_one": False}
CASES = [
    ("DDIM", STABLE_DIFFUSION),
    ("DDIM", ZERO_SNR),
    ("DDIM", {"prediction_type": "sample"}),
    ("DDIM", {**V, "beta_schedule": "squaredcos_cap_v2"}),
    ("DDPM", {}),
    ("DDPM", {**V, "timestep_spacing": "linspace"}),
    ("DDPM", {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
    ("PNDM", {**STABLE_DIFFUSION, "skip_prk_steps": True}),
    ("EulerDiscrete", {}),
    ("EulerDiscrete", {**LEADING, "steps_offset": 1}),
    ("EulerDiscrete", {**V, **KARRAS, **TRAILING}),
    ("EulerDiscrete", {"use_exponential_sigmas": True}),
    ("EulerDiscrete", {**V, "use_beta_sigmas": True}),
    ("EulerDiscrete", ZERO_SNR),
    ("EulerDiscrete", {**KARRAS, **SIGMA_MIN}),
    ("EulerAncestralDiscrete", TRAILING),
    ("EulerAncestralDiscrete", V),
    ("EulerAncestralDiscrete", ZERO_SNR),
    ("HeunDiscrete", {}),
    ("HeunDiscrete", {**V, **KARRAS, **LEADING}),
    ("LMSDiscrete", {}),
    ("LMSDiscrete", {**V, **KARRAS, **TRAILING}),
    ("DPMSolverMultistep", {}),
    ("DPMSolverMultistep", {**V, **KARRAS}),
    ("DPMSolverMultistep", {"use_exponential_sigmas": True}),
    ("DPMSolverMultistep", ZERO_SNR),
    ("DPMSolverMultistep", {**LEADING, **SIGMA_MIN}),
    ("DPMSolverMultistep", {**SIGMA_MIN, "euler_at_final": True}),
    ("DPMSolverMultistep", {**SIGMA_MIN, "lower_order_final": False}),
    ("DPMSolverMultistep", {**V, **KARRAS, "beta_schedule": "squaredcos_cap_v2"}),
    ("DPMSolverMultistep", {**SDE, **TRAILING}),
    ("DPMSolverMultistep", {**SDE, **V, **KARRAS}),
    ("DPMSolverMultistep", {**SDE, **SIGMA_MIN}),
    ("UniPCMultistep", {}),
    ("UniPCMultistep", {**V, **KARRAS}),
    ("UniPCMultistep", {"use_beta_sigmas": True}),
    ("UniPCMultistep", ZERO_SNR),
    ("UniPCMultistep", {**LEADING, **SIGMA_MIN}),
    ("LCM", {}),
    ("LCM", V),
    ("FlowMatchEulerDiscrete", {}),
    ("FlowMatchEulerDiscrete", {"shift": 3.0}),
    ("FlowMatchHeunDiscrete", {"shift": 3.0}),
]


@pytest.mark.parametrize("steps", [4, 20])
@pytest.mark.parametrize(("name", "fields"), CASES)
def test_trajectories(name, fields, steps, monkeypatch):
    compare(
        {**SD, "clip_sample": False, "_class_name": f"{name}Scheduler", **fields},
        steps,
        monkeypatch,
    )


@pytest.mark.parametrize("steps", [4, 7, 50])
def test_other_numbers_of_steps(steps, monkeypatch):
    """Numbers that do not divide 1000, and many steps."""
    for name in ("DDPM", "EulerDiscrete", "UniPCMultistep", "LCM"):
        config = {**SD, "clip_sample": False, "_class_name": f"{name}Scheduler", **V}
        compare(config, steps, monkeypatch)


def test_eta_of_ddim(monkeypatch):
    config = {**SD, **STABLE_DIFFUSION, "_class_name": "DDIMScheduler", "clip_sample": False}
    fresh = compare(config, 20, monkeypatch, {"eta": 0.7})
    assert np.abs(fresh - compare(config, 20, monkeypatch)).max() > 0.1


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_tcd(gamma, monkeypatch):
    for fields in ({}, V):
        config = {**SD, **fields, "_class_name": "TCDScheduler"}
        compare(config, 4, monkeypatch, None, {"gamma": gamma}, {"eta": gamma})


@pytest.mark.parametrize("even", [True, False])
def test_dynamic_shift(even, monkeypatch):
    """FLUX's pipeline gives its own grid, SD 3.5's does not; both give mu."""
    config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        **{"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
        **{"base_image_seq_len": 256, "max_image_seq_len": 4096},
    }
    for tokens, mu in ((256, 0.5), (4096, 1.15), (2176, 0.825)):
        their = {"mu": mu, "sigmas": np.linspace(1.0, 1 / 8, 8) if even else None}
        compare(config, 8, monkeypatch, None, {"even": even, "tokens": tokens}, their)


def test_steps_without_a_shift(monkeypatch):
    """FLUX.1-schnell: its own grid, and no shift."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    compare(config, 4, monkeypatch, None, {"even": True}, {"sigmas": np.linspace(1.0, 1 / 4, 4)})
