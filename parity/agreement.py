"""What tests of agreement with PyTorch share: random models, comparisons, and published names."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from t2i_jax.weights.published import LAYOUTS, Published, write_arrays


def random_model(make: Callable, *args, **kwargs) -> Any:
    """Return a model of which no weight is near zero or one, where norms and biases start.

    Products are about one in size, so that no softmax or activation is nearly linear.
    """
    torch.manual_seed(0)
    model = make(*args, **kwargs).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim < 2:
                value.add_(0.2 * torch.randn_like(value))
            else:
                value.normal_(std=1.2 * value[0].numel() ** -0.5)
    return model


def arrays_of(model: Any) -> dict[str, np.ndarray]:
    """Return the state dict of a model as NumPy arrays."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


def check_close(found: Any, expected: torch.Tensor, what: str = "the output") -> None:
    """Check that the largest difference is below 1e-4 of the output's scale, and print it."""
    wanted, found = expected.detach().numpy(), np.asarray(found)
    assert found.shape == wanted.shape
    assert wanted.std(axis=0).mean() > 0.05 * wanted.std(), f"{what} hardly differs in a batch"
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    print(f"{what}: largest difference over the scale {error:.1e}")
    assert error < 1e-4, f"{what} differs by {error:.1e} of its scale"


def check_written(params: Any, place: Callable, arrays: dict[str, np.ndarray]) -> None:
    """Check that what is written is what was read, bit for bit."""
    written = write_arrays(params, place)
    assert sorted(written) == sorted(arrays)
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def check_names(shapes: Any, place: Callable[..., Published], model: Any) -> int:
    """Check that names and shapes of a file are those of a model on the meta device.

    shapes: our parameters as shapes. Returns the number of parameters.
    """
    found = {}
    for path, ours in jax.tree_util.tree_leaves_with_path(shapes):
        name, layout = place(tuple(entry.key for entry in path))
        assert name not in found
        found[name] = LAYOUTS[layout].to_theirs(np.broadcast_to(np.float32(0), ours.shape)).shape
    assert found == {name: tuple(value.shape) for name, value in model.state_dict().items()}
    return sum(value.numel() for value in model.parameters())
