"""Files of torch.save are read correctly, in both of its formats."""

import io

import numpy as np
import pytest
import torch

from t2i_jax.weights import torch_file

FORMATS = pytest.mark.parametrize("archive", [True, False])
TYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]
TYPES += ["complex64", "complex128"]


def saved(tensors, archive, **options):
    buffer = io.BytesIO()
    torch.save(tensors, buffer, _use_new_zipfile_serialization=archive, **options)
    return buffer.getvalue()


@FORMATS
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_state_of_a_network(archive, protocol):
    """Convolutions, norms (with an int64 counter), nn.Parameters, and the dict's own _metadata."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2)
    )
    for keep in (False, True):
        expected = network.state_dict(keep_vars=keep)
        found = torch_file.load(saved(expected, archive, pickle_protocol=protocol))
        assert list(found) == list(expected)
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found[name], tensor.detach().numpy(), strict=True)


@FORMATS
@pytest.mark.parametrize("dtype", TYPES)
def test_types(archive, dtype):
    tensor = torch.tensor([[0, 1, 2], [3, -5, 1000]]).to(getattr(torch, dtype))
    found = torch_file.load(saved({"a": tensor}, archive))["a"]
    assert found.dtype.name == dtype and found.shape == (2, 3)
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    np.testing.assert_array_equal(found.astype(np.complex128), tensor.to(wide).numpy())


@FORMATS
def test_views_that_share_a_storage(archive):
    base = torch.arange(24.0).reshape(4, 6)
    views = {
        "base": base,
        "turned": base.T,
        "part": base[1:3, ::2],
        "row": base[2],
        "one": base[3, 5],
    }
    views |= {"wide": base[0].expand(3, 6), "none": base[:0], "scalar": torch.tensor(2.5)}
    found = torch_file.load(saved(views, archive))
    for name, tensor in views.items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
