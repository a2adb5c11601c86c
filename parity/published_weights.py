"""What the parity tests of published networks share: random PyTorch models, and our copies."""

import jax
import numpy as np
import torch

from t2i_jax.weights.published import LAYOUTS, read_params, write_arrays


def randomise(model, seed=0):
    """Set all parameters at random, those too that start at zero or one.

    Linear layers keep the size of their input, so that softmax and activations are not linear.
    """
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        if value.ndim == 1:
            start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            value.data = start + 0.2 * torch.randn_like(value)
        else:
            embedding = "embed_tokens" in name or "shared" in name or "attention_bias" in name
            scale = 1.0 if embedding else (value[0].numel()) ** -0.5
            value.data = scale * torch.randn_like(value)
    return model.eval()


def arrays_of(model):
    """Return the arrays of a PyTorch model by name."""
    return {name: value.numpy() for name, value in model.state_dict().items()}


def our_params(model, net, inputs, weights):
    """Return our parameters with the numbers of a PyTorch model, after a round trip.

    weights: a module of t2i_jax.weights, with `published` and perhaps `ignored`.
    """
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    ignored = getattr(weights, "ignored", lambda name: False)
    arrays = arrays_of(model)
    params = read_params(arrays, shapes, weights.published, "the model", ignored)
    written = write_arrays(params, weights.published)
    assert set(written) == {name for name in arrays if not ignored(name)}
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    missing = model.load_state_dict(
        {name: torch.tensor(array) for name, array in written.items()}, strict=False
    )
    assert not missing.unexpected_keys and all(ignored(name) for name in missing.missing_keys)
    return params


def assert_close(found, expected, what=""):
    """Compare with 1e-4 of the expected output's scale, and print the largest difference."""
    expected = expected.detach().numpy()
    scale = np.abs(expected).max()
    assert expected.std(axis=0).mean() > 0.05 * expected.std(), f"{what} is the same for all inputs"
    difference = np.abs(np.asarray(found) - expected).max() / scale
    print(f"{what}: largest difference {difference:.1e} of the scale {scale:.2f}")
    assert found.shape == expected.shape and difference < 1e-4


def assert_same_arrays(model, net, inputs, weights):
    """Check that a PyTorch model on the meta device has exactly our arrays, by name and shape."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    ignored = getattr(weights, "ignored", lambda name: False)
    theirs = {
        name: tuple(value.shape) for name, value in model.state_dict().items() if not ignored(name)
    }
    ours = {}
    for path, shape in jax.tree_util.tree_leaves_with_path(shapes):
        name, layout = weights.published(tuple(entry.key for entry in path))
        assert name not in ours
        # A view of one number: these networks do not fit into memory.
        ours[name] = LAYOUTS[layout].to_theirs(np.broadcast_to(np.float32(0), shape.shape)).shape
    assert ours == theirs
