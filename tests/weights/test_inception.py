"""Batch norms folded into convolutions."""

import numpy as np
import pytest

from t2i_jax.weights.inception import from_published


def test_folding():
    """A 1 x 1 convolution of one pixel, then its batch norm, by hand; and where each layer goes."""
    r = np.random.default_rng(0)
    fields = {
        "conv.weight": (4, 3, 1, 1),
        "bn.weight": 4,
        "bn.bias": 4,
        "bn.running_mean": 4,
        "bn.running_var": 4,
    }
    names = ("Conv2d_3b_1x1", "Mixed_5b.branch1x1", "Mixed_5b.branch_pool")
    arrays = {
        f"{n}.{field}": r.uniform(0.2, 2, shape) for n in names for field, shape in fields.items()
    }
    arrays |= {f"{n}.bn.num_batches_tracked": np.zeros((), np.int64) for n in names}
    arrays |= {"fc.weight": r.normal(size=(1008, 5)), "fc.bias": np.zeros(1008)}
    params = from_published(arrays)
    assert set(params) == {"Conv2d_3b_1x1", "Mixed_5b", "fc"}
    assert set(params["Mixed_5b"]) == {"branch1x1", "branch_pool"}
    assert set(params["fc"]) == {"kernel"}
    np.testing.assert_array_equal(params["fc"]["kernel"], arrays["fc.weight"].T)

    x = r.normal(size=3)
    for name, layer in zip(
        names, (params["Conv2d_3b_1x1"], *params["Mixed_5b"].values()), strict=True
    ):
        a = {field: arrays[f"{name}.{field}"] for field in fields}
        y = (a["conv.weight"][:, :, 0, 0] @ x - a["bn.running_mean"]) / np.sqrt(
            a["bn.running_var"] + 0.001
        )
        np.testing.assert_allclose(
            x @ layer["kernel"][0, 0] + layer["bias"], y * a["bn.weight"] + a["bn.bias"], rtol=1e-12
        )


def test_kernels_are_transposed():
    """Published [out, in, height, width]; here [height, width, in, out]."""
    arrays = {f"a.bn.{k}": np.ones(6) for k in ("weight", "bias", "running_mean")} | {
        "a.bn.running_var": np.full(6, 0.999)
    }
    arrays |= {
        "a.conv.weight": np.arange(6 * 5 * 1 * 7).reshape(6, 5, 1, 7),
        "fc.weight": np.zeros((1008, 1)),
    }
    kernel = from_published(arrays)["a"]["kernel"]
    assert kernel.shape == (1, 7, 5, 6)
    np.testing.assert_allclose(kernel[0, 3, 2, 4], arrays["a.conv.weight"][4, 2, 0, 3])


def test_another_inception():
    with pytest.raises(
        ValueError,
        match=r"weights for 1000 classes.*torchvision's.*Take weights-inception-2015-12-05",
    ):
        from_published({"fc.weight": np.zeros((1000, 2048))})
