"""Fused attention against plain attention, and the kernels in programs for GPUs and TPUs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import Mesh

from t2i_jax.models import fused_attention
from t2i_jax.models.attention import attend
from t2i_jax.models.fused_attention import (
    attend_cudnn,
    attend_splash,
    find_kernel,
    no_fused_attention,
)
from t2i_jax.models.mesh_axes import AXES


def arrays(queries, keys, heads=4, kv_heads=4, channels=16, dtype=jnp.float32):
    r = np.random.default_rng(0)
    shapes = [(3, queries, heads, channels)] + 2 * [(3, keys, kv_heads, channels)]
    return [jnp.asarray(r.normal(size=shape), dtype) for shape in shapes]


def first_keys(keys, lengths=(None, 5, 0)):
    return jnp.arange(keys) < jnp.array([[keys if n is None else n] for n in lengths])


def causal(keys):
    return jnp.tril(jnp.ones((keys, keys), bool)) & first_keys(keys)[:, None, None]


def by_splash(q, k, v, mask):
    return attend_splash(q, k, v, mask, interpret=True)


def by_cudnn(q, k, v, mask):
    return attend_cudnn(q, k, v, mask, implementation="xla")


@pytest.mark.parametrize("kernel", [by_splash, by_cudnn])
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("masked", [True, False])
def test_kernels_agree_with_plain_attention(kernel, kv_heads, masked):
    q, k, v = arrays(131, 70, kv_heads=kv_heads)
    mask = first_keys(70) if masked else None
    np.testing.assert_allclose(kernel(q, k, v, mask), attend(q, k, v, mask), atol=1e-5)


def test_kernels_agree_in_bfloat16():
    q, k, v = arrays(64, 70, dtype=jnp.bfloat16)
    mask = first_keys(70)
    exact = attend(*(x.astype(jnp.float32) for x in (q, k, v)), mask)
    for kernel in (by_splash, by_cudnn):
        found = kernel(q, k, v, mask)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=2e-2)


@pytest.mark.parametrize("keys", [69, 70])
def test_any_mask_of_queries_and_keys(keys):
    q, k, v = arrays(keys, keys)
    np.testing.assert_allclose(
        by_cudnn(q, k, v, causal(keys)), attend(q, k, v, causal(keys)), atol=1e-5
    )


@pytest.mark.parametrize("kernel", [by_splash, by_cudnn])
def test_gradients_agree_with_plain_attention(kernel):
    mask = first_keys(70)

    def gradients(attend):
        loss = lambda *qkv: jnp.sum(jnp.sin(attend(*qkv, mask)))  # noqa: E731
        return jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays(40, 70))

    for found, expected in zip(gradients(kernel), gradients(attend), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.fixture
def platform(monkeypatch):
    """platform(name): programs are traced as if for that platform."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    return lambda name: monkeypatch.setattr(fused_attention, "platform", lambda: name)


def lowered(name, queries, keys, mask):
    """Return the text of the program for a platform that computes attention's gradient."""

    def loss(q, k, v):
        return jnp.sum(attend(q, k, v, mask).astype(jnp.float32) ** 2)

    qkv = arrays(queries, keys, channels=64, dtype=jnp.bfloat16)
    program = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*qkv)
    return program.lower(lowering_platforms=(name,)).as_text()


@pytest.mark.parametrize(
    ("mask", "calls"),
    [
        (None, ["fmhaSoftmax", "fmhaSoftmaxBackward"]),
        (first_keys(70), ["fmhaSoftmax", "fmhaSoftmaxBackward"]),
        (causal(70), ["fmhaScaleBiasSoftmax", "fmhaScaleBiasSoftmaxBackward"]),
    ],
    ids=["none", "keys", "queries and keys"],
)
def test_a_program_for_a_gpu_calls_cudnn(platform, mask, calls):
    platform("cuda")
    assert re.findall(r"__cudnn\$(\w+)", lowered("cuda", 70, 70, mask)) == calls


def test_a_program_for_a_tpu_calls_splash_attention(platform, monkeypatch):
    platform("tpu")
    assert "tpu_custom_call" not in lowered("tpu", 1024, 1024, None)  # several devices, no mesh
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    text = lowered("tpu", 100, 1030, first_keys(1030))
    assert text.count("tpu_custom_call") == 3  # forwards; gradients of the query; of key and value
    assert "tpu_custom_call" not in lowered("tpu", 100, 1000, None)


def test_splash_attention_on_a_mesh(monkeypatch):
    mesh = Mesh(np.reshape(jax.devices()[:6], (3, 1, 2)), AXES)
    monkeypatch.setattr(fused_attention, "platform", lambda: "tpu")
    monkeypatch.setattr(fused_attention, "MIN_TPU_KEYS", 64)
    monkeypatch.setattr(fused_attention, "HALVES", (jnp.float32,))
    original = fused_attention._splash_kernel
    monkeypatch.setattr(
        fused_attention, "_splash_kernel", lambda *sizes: original(*sizes[:3], True)
    )
    q, k, v = arrays(40, 70)
    mask = first_keys(70)

    def on_mesh(*qkv):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            assert find_kernel(*qkv[:2], mask) is fused_attention._attend_splash_on_mesh
            return attend(*qkv, mask)

    with no_fused_attention():
        expected = attend(q, k, v, mask)
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data", None, "tensor"))
    found = jax.jit(on_mesh)(*(jax.device_put(x, split) for x in (q, k, v)))
    assert len(found.sharding.device_set) == 6
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cpu", {}),
        ("rocm", {}),
        ("cuda", dict(dtype=jnp.float32)),
        ("cuda", dict(channels=12)),
        ("cuda", dict(channels=136)),
        ("cuda", dict(queries=1)),
    ],
)
def test_plain_attention_where_no_kernel_fits(platform, name, changes):
    platform(name)
    sizes = dict(queries=70, keys=70, channels=64, dtype=jnp.bfloat16)
    q, k, _ = arrays(**sizes)
    assert (find_kernel(q, k, None) is None) == (name != "cuda")
    q, k, _ = arrays(**sizes | changes)
    assert find_kernel(q, k, None) is None


def test_forward_mode_needs_plain_attention(platform):
    platform("cuda")
    q, k, v = arrays(70, 70, channels=64, dtype=jnp.bfloat16)
    assert find_kernel(q, k, None) is attend_cudnn
    with no_fused_attention():
        assert find_kernel(q, k, None) is None
        jax.jvp(lambda q: attend(q, k, v), (q,), (q,))
    assert find_kernel(q, k, None) is attend_cudnn
