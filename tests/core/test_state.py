"""The running average against its definition."""

import jax.numpy as jnp
import numpy as np

from t2i_jax.core import state


def test_ema_warms_up_and_then_decays():
    ema = {"w": jnp.array(0.0), "count": jnp.array(3)}
    new = {"w": jnp.array(1.0), "count": jnp.array(7)}
    expected = 0.0
    for step in range(50):
        ema = state.update_ema(ema, new, jnp.int32(step), 0.8)
        d = min(0.8, (1 + step) / (10 + step))
        expected = expected * d + 1.0 - d
        np.testing.assert_allclose(ema["w"], expected, rtol=1e-5)
    assert int(ema["count"]) == 7  # not a float: taken as it is
