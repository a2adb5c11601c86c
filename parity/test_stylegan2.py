"""StyleGAN2's operations against PyTorch, written as in the paper.

Weights are modulated for each example, zeros are inserted between pixels, and filters are applied
one after the other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from t2i_jax.models import resampling
from t2i_jax.models import stylegan2 as s

B, I, O, H = 3, 6, 5, 8
FIR = torch.outer(*2 * [torch.tensor([1.0, 3.0, 3.0, 1.0])]) / 64


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def theirs(x):
    """NHWC -> NCHW, or HWIO -> OIHW for a kernel, as a tensor."""
    return (
        torch.tensor(x).permute(3, 2, 0, 1)
        if x.shape[:2] in ((3, 3), (1, 1))
        else torch.tensor(x).permute(0, 3, 1, 2)
    )


def close(found, expected):
    """Agreement to 1e-5 of values about one in size."""
    expected = expected.permute(0, 2, 3, 1).numpy()
    assert expected.std() > 0.1 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def upfirdn(x, up=1, down=1, pad=(0, 0), gain=1.0):
    """Zeros after each pixel, zeros around, FIR, every `down`-th pixel."""
    b, c, h, w = x.shape
    y = torch.zeros(b, c, h * up, w * up)
    y[:, :, ::up, ::up] = x
    y = F.pad(y, (pad[0], pad[1], pad[0], pad[1]))
    return F.conv2d(y, gain * FIR.repeat(c, 1, 1, 1), groups=c)[:, :, ::down, ::down]


def modulated(x, kernel, style, up=False, demodulate=True):
    """Equations 1 and 3 with a grouped convolution, one group per example.

    Upsampling is a transposed convolution, followed by the FIR filter.
    """
    b, i, h, w = x.shape
    weights = kernel[None] * style[:, None, :, None, None]
    if demodulate:
        weights = weights * (weights.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    o, size = weights.shape[1], weights.shape[-1]
    x = x.reshape(1, b * i, h, w)
    if not up:
        return F.conv2d(
            x, weights.reshape(b * o, i, size, size), padding=size // 2, groups=b
        ).reshape(b, o, h, w)
    # conv_transpose2d spreads each pixel with the kernel: a correlation with the flipped kernel.
    weights = weights.transpose(1, 2).flip(3, 4).reshape(b * i, o, size, size)
    y = F.conv_transpose2d(x, weights, stride=2, groups=b).reshape(b, o, 2 * h + 1, 2 * w + 1)
    return upfirdn(y, pad=(1, 1), gain=4.0)


def test_resampling():
    x = normal(B, H, H, I)
    close(resampling.upsample(x), upfirdn(theirs(x), up=2, pad=(2, 1), gain=4.0))
    close(resampling.downsample(x), upfirdn(theirs(x), down=2, pad=(1, 1)))


def test_conv_down_is_blur_then_stride():
    x, kernel = normal(B, H, H, I), normal(3, 3, I, O, seed=1) / 7
    close(
        resampling.conv_down(x, kernel),
        F.conv2d(upfirdn(theirs(x), pad=(2, 2)), theirs(kernel), stride=2),
    )


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("operation", [resampling.conv, resampling.conv_up])
def test_modulated_convolution(operation, demodulate):
    x, kernel, style = normal(B, H, H, I), normal(3, 3, I, O, seed=1) / 7, 1 + normal(B, I, seed=2)
    expected = modulated(
        theirs(x), theirs(kernel), torch.tensor(style), operation is resampling.conv_up, demodulate
    )
    close(resampling.modulated_conv(x, jnp.asarray(kernel), style, operation, demodulate), expected)


def test_gradients_of_a_modulated_upsampling_convolution():
    x, kernel, style = normal(B, H, H, I), normal(3, 3, I, O, seed=1), 1 + normal(B, I, seed=2)
    ours = jax.grad(
        lambda *a: jnp.sin(resampling.modulated_conv(*a, resampling.conv_up)).mean() * 1000,
        (0, 1, 2),
    )(x, jnp.asarray(kernel), style)
    leaves = [
        theirs(x).requires_grad_(),
        theirs(kernel).requires_grad_(),
        torch.tensor(style).requires_grad_(),
    ]
    (modulated(*leaves, up=True).sin().mean() * 1000).backward()
    expected = (
        leaves[0].grad.permute(0, 2, 3, 1),
        leaves[1].grad.permute(2, 3, 1, 0),
        leaves[2].grad,
    )
    for found, value in zip(ours, expected, strict=True):
        np.testing.assert_allclose(
            found, value.numpy(), rtol=0, atol=1e-5 * float(value.abs().max())
        )


def linear(params, x, rate=1.0):
    """Equalised learning rate as a scale at run time."""
    kernel = torch.tensor(np.asarray(params["kernel"])) * rate / params["kernel"].shape[0] ** 0.5
    return x @ kernel + rate * torch.tensor(np.asarray(params.get("bias", np.zeros(()))))


def unit(x):
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def test_mapping_network():
    z, pooled = normal(B, 16), normal(B, 7, seed=1)
    net = s.Mapping(24, 4)
    params = net.init(jax.random.key(0), z, pooled)["params"]
    params = jax.tree.map(lambda p: p + 10 * normal(*p.shape, seed=3) if p.ndim == 1 else p, params)
    x = torch.cat([unit(torch.tensor(z)), unit(linear(params["text"], torch.tensor(pooled)))], 1)
    for i in range(4):
        x = F.leaky_relu(linear(params[f"layer_{i}"], x, 0.01), 0.2) * 2**0.5
    assert x.std() > 0.1
    np.testing.assert_allclose(
        net.apply({"params": params}, z, pooled), x.numpy(), rtol=1e-5, atol=1e-5
    )


def test_upsampling_layer():
    """A whole layer: style from w, modulated upsampling, noise, bias, activation."""
    x, w, keys = normal(B, H, H, I), normal(B, 9, seed=1), jax.random.split(jax.random.key(0), B)
    net = s.StyledConv(O, resampling.conv_up)
    params = net.init(jax.random.key(1), x, w, keys)["params"] | {"bias": normal(O, seed=2)}
    kernel = theirs(np.asarray(params["kernel"]) / (9 * I) ** 0.5)
    quiet = modulated(theirs(x), kernel, linear(params["style"], torch.tensor(w)), up=True)

    def after(noise):
        y = quiet + noise + torch.tensor(params["bias"])[None, :, None, None]
        return F.leaky_relu(y, 0.2) * 2**0.5

    close(net.apply({"params": params}, x, w, keys), after(0.0))
    # The noise is JAX's own: read it off where everything else is silent.
    silent = {
        **params,
        "kernel": 0 * params["kernel"],
        "bias": np.full(O, 1e3, np.float32),
        "noise": jnp.ones(()),
    }
    noise = np.asarray(net.apply({"params": silent}, x, w, keys)) / 2**0.5 - 1e3
    assert 0.8 < noise.std() < 1.2 and np.ptp(noise, axis=-1).max() == 0
    loud = net.apply({"params": {**params, "noise": jnp.float32(0.01)}}, x, w, keys)
    close(loud, after(0.01 * torch.tensor(noise).permute(0, 3, 1, 2)))


def test_minibatch_std():
    x = normal(B, 4, 4, I)
    expected = (theirs(x).var(0, unbiased=False) + 1e-8).sqrt().mean()
    np.testing.assert_allclose(s.minibatch_std(jnp.asarray(x)), expected.numpy(), rtol=1e-5)


def test_picture_layer():
    x, w = normal(B, H, H, I), normal(B, 9, seed=1)
    net = s.ToPicture(3)
    params = net.init(jax.random.key(0), x, w)["params"] | {"bias": normal(3, seed=2)}
    style = linear(params["style"], torch.tensor(w))
    expected = modulated(
        theirs(x), theirs(np.asarray(params["kernel"]) / I**0.5), style, demodulate=False
    )
    close(
        net.apply({"params": params}, x, w),
        expected + torch.tensor(params["bias"])[None, :, None, None],
    )
