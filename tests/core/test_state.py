"""The running average against its definition, and checksums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool", "uint32"])
def test_every_bit_counts_in_a_checksum(dtype):
    def flipped(place, bit):
        x = np.zeros((2, 3), jnp.dtype(dtype))
        x.reshape(-1).view(np.uint8)[place] ^= bit
        return {"a": x, "b": np.float32(1.0)}

    checksum, size = jax.jit(state.checksum), 6 * jnp.dtype(dtype).itemsize
    bits = [1] if dtype == "bool" else [1 << i for i in range(8)]
    found = [int(checksum(flipped(place, bit))) for place in range(size) for bit in bits]
    assert int(checksum(flipped(0, 0))) not in found and len(set(found)) > len(found) / 2


def test_a_checksum_is_the_same_on_several_devices():
    x = np.random.default_rng(0).normal(size=(16, 24)).astype(np.float32)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("all"))
    sums = {int(jax.jit(state.checksum)(y)) for y in (x, jax.device_put(x, split))}
    bits = x.view(np.uint32).reshape(-1)
    hashed = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashed ^= hashed >> np.uint32(13)
    assert sums == {sum(int(h) * (2 * i + 1) for i, h in enumerate(hashed)) % 2**32}
    assert sums != {int(state.checksum(x[::-1].copy()))}
