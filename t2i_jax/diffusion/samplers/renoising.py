"""Samplers that predict x0 and noise it again: with the predicted noise, fresh noise, or both.

One step is x = alpha x0 + kept noise + fresh z, where z is drawn and kept² + fresh² = sigma².
DDIM, DDPM, LCM and TCD differ only in how much of the predicted noise is kept.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from t2i_jax.core.types import Number
from t2i_jax.diffusion.samplers.fresh_noise import fresh_noise, need_keys
from t2i_jax.diffusion.schedules import Schedule


def ddim(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
    eta: Number = 0.0,
) -> Float[Array, "B *rest"]:
    """Sample with DDIM (arXiv 2010.02502, equation 12), under any schedule.

    Order 1 at eta 0; calls the network `steps` times. At eta 0 it is Euler's method for
    d(x / alpha) / d(sigma / alpha) = noise, and so the "Euler" of k-diffusion and diffusers; under
    the rectified schedule it is `euler`.

    eta: scales the fresh noise, from none (0) to DDPM's (1).

    Raises ValueError if eta is not 0 and there are no keys.
    """
    if not (isinstance(eta, int | float) and eta == 0):
        need_keys(keys)

    def share(here, there, after):
        # The standard deviation of q(x_after | x_now, x0) is
        # sigma_after sqrt(1 - SNR_now / SNR_after), which is 0 at the end.
        drop = 1.0 - (here.alpha * there.sigma / (there.alpha * here.sigma)) ** 2
        fresh = eta * there.sigma * jnp.sqrt(jnp.maximum(drop, 0.0))
        return jnp.sqrt(jnp.maximum(there.sigma**2 - fresh**2, 0.0)), fresh

    return _renoise(predict, x, times, schedule, keys, share)


def ddpm(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample from DDPM's posteriors (ancestral sampling, arXiv 2006.11239, equations 6 and 7).

    It is DDIM with eta 1 (arXiv 2010.02502, section 4.1), and it is the "Euler ancestral" of
    k-diffusion and diffusers: their sigma_up and sigma_down, times alpha, are `fresh` and `kept`.
    Calls the network `steps` times. Raises ValueError without keys.
    """
    return ddim(predict, x, times, schedule, keys, eta=1.0)


def lcm(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with a latent consistency model (arXiv 2310.04378, algorithm 3). All noise is fresh.

    Calls the network `steps` times. The weight of x in the paper's consistency function,
    0.25 / ((10 timestep)² + 0.25), is left out: it is below 1e-5 from timestep 16 on, and these
    models are not called below 19. Raises ValueError without keys.
    """

    def share(here, there, after):
        return jnp.zeros_like(there.sigma), there.sigma

    return _renoise(predict, x, times, schedule, need_keys(keys), share)


def tcd(
    predict: Callable,
    x: Float[Array, "B *rest"],
    times: Float[Array, "T"],
    schedule: Schedule,
    keys: Key[Array, "B"] | None = None,
    gamma: Number = 0.3,
    timesteps: int | None = None,
) -> Float[Array, "B *rest"]:
    """Sample with a trajectory consistency model (arXiv 2402.19159, algorithm 4).

    A step goes to (1 - gamma) times the next time as DDIM does, and from there back to the next
    time by adding noise. Calls the network `steps` times.

    gamma: from 0 (DDIM) to 1 (all noise is fresh).
    timesteps: how many a model with a table has: the time between is then rounded down to one of
        them, as the authors do. None for continuous times.

    Raises ValueError without keys.
    """

    def share(here, there, after):
        if timesteps is None:
            between = schedule((1.0 - gamma) * after)
        else:
            # The small number absorbs rounding where the timestep is a whole number.
            timestep = jnp.floor((1.0 - gamma) * (timesteps * after - 1.0) + 1e-3)
            between = schedule((timestep + 1.0) / timesteps)
        kept = there.alpha / between.alpha * between.sigma
        return kept, jnp.sqrt(jnp.maximum(there.sigma**2 - kept**2, 0.0))

    return _renoise(predict, x, times, schedule, need_keys(keys), share)


def _renoise(predict, x, times, schedule, keys, share):
    """Sample with x = alpha x0 + kept noise + fresh z at each step.

    share: (schedule now, schedule after, time after) -> (kept, fresh). Without keys, nothing fresh
        is added.
    """

    def step(x, xs):
        now, after, index = xs
        x0, noise = predict(x, now)
        here, there = schedule(now), schedule(after)
        kept, fresh = share(here, there, after)
        x = there.alpha * x0 + kept * noise
        if keys is not None:
            x = x + fresh * fresh_noise(keys, index, x)
        return x, None

    return jax.lax.scan(step, x, (times[:-1], times[1:], jnp.arange(len(times) - 1)))[0]
