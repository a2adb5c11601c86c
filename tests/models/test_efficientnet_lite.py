"""EfficientNet-Lite: the published size, and the block against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models import efficientnet_lite as lite


def shapes(side):
    model = lite.EfficientNetLite()
    return jax.eval_shape(
        model.init_with_output,
        jax.random.key(0),
        jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
    )


def test_lite0_has_the_published_number_of_parameters():
    """A norm has two parameters a channel; a convolution has no bias."""
    count = 9 * 3 * 32 + 2 * 32
    width, norms = 32, 32
    for blocks, kernel, _, expansion, channels in lite.LITE0:
        for _ in range(blocks):
            inner = expansion * width
            count += (
                (width * inner + 2 * inner if expansion > 1 else 0) + kernel**2 * inner + 2 * inner
            )
            count += inner * channels + 2 * channels
            norms += inner * (2 if expansion > 1 else 1) + channels
            width = channels
    count += width * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    _, variables = shapes(224)
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count == 4_652_008
    assert sum(x.size for x in jax.tree.leaves(variables["batch_stats"])) == 2 * (norms + 1280)
    assert sum(name.startswith("block_") for name in variables["params"]) == 16


@pytest.mark.parametrize(("side", "sides"), [(224, (112, 56, 28, 14, 7)), (65, (33, 17, 9, 5, 3))])
def test_maps_are_at_five_scales(side, sides):
    out, _ = shapes(side)
    assert out["features"].shape == (2, 1280) and out["logits"].shape == (2, 1000)
    assert [m.shape for m in out["maps"]] == [
        (2, s, s, c) for s, c in zip(sides, (16, 24, 40, 112, 320), strict=True)
    ]


def by_loops(variables, x, kernel, stride):
    """Compute the block pixel by pixel in float64. x [H, W, C]."""
    params, stats = variables["params"], variables["batch_stats"]

    def norm(y, name):
        scale = params[name]["scale"] / np.sqrt(stats[name]["var"] + 1e-3)
        return (y - stats[name]["mean"]) * scale + params[name]["bias"]

    y = x
    if "expand" in params:
        y = np.clip(norm(y @ params["expand"]["kernel"][0, 0], "expand_norm"), 0, 6)
    sides = [-(-n // stride) for n in x.shape[:2]]
    before = [
        max((m - 1) * stride + kernel - n, 0) // 2 for m, n in zip(sides, x.shape, strict=False)
    ]
    out = np.zeros((*sides, y.shape[-1]))
    for i, j in np.ndindex(*sides):
        for a, b in np.ndindex(kernel, kernel):
            row, column = i * stride + a - before[0], j * stride + b - before[1]
            if 0 <= row < x.shape[0] and 0 <= column < x.shape[1]:
                out[i, j] += y[row, column] * params["depthwise"]["kernel"][a, b, 0]
    out = norm(
        np.clip(norm(out, "depthwise_norm"), 0, 6) @ params["project"]["kernel"][0, 0],
        "project_norm",
    )
    return out + x if out.shape == x.shape else out


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "expansion", "size"),
    [
        (6, 3, 1, 6, (5, 4)),
        (4, 5, 1, 1, (6, 6)),
        (5, 3, 2, 6, (6, 8)),
        (5, 5, 2, 6, (7, 6)),
        (4, 5, 2, 1, (5, 6)),
    ],
)
def test_a_block_agrees_with_its_definition(channels, kernel, stride, expansion, size):
    """With stride 1 and equal channels, a block adds its input.

    With stride 2, an even side has more padding on the right and below.
    """
    block = lite.InvertedResidual(channels, kernel, stride, expansion)
    rng = np.random.default_rng(kernel)
    x = rng.normal(size=(1, *size, 4 if expansion == 1 else 6)).astype(np.float32)
    shape = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1.5, leaf.shape) * rng.choice([-1, 1], leaf.shape), shape
    )
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    expected = by_loops(variables, x[0].astype(np.float64), kernel, stride)
    found = jax.jit(block.apply)(jax.tree.map(np.float32, variables), x)[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
