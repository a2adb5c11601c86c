"""Each published array gets to its place, in the right orientation, and nothing is guessed."""

import jax
import numpy as np
import pytest

from t2i_jax.models.efficientnet_lite import EfficientNetLite
from t2i_jax.weights.efficientnet_lite import convert

MODEL = EfficientNetLite(stages=((1, 3, 1, 1, 4), (2, 5, 2, 6, 8)), classes=3)


@pytest.fixture
def published():
    """A state dict of the tiny network with PyTorch's names and shapes. All values differ."""
    rng, arrays = np.random.default_rng(0), {}

    def conv(name, *shape):
        arrays[f"{name}.weight"] = rng.normal(size=shape)

    def norm(name, channels):
        for field in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{name}.{field}"] = rng.uniform(1, 2, channels)
        arrays[f"{name}.num_batches_tracked"] = np.array(7)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    width = 32
    for i, (kernel, expansion, channels) in enumerate(((3, 1, 4), (5, 6, 8), (5, 6, 8))):
        inner = width * expansion
        if expansion > 1:
            conv(f"_blocks.{i}._expand_conv", inner, width, 1, 1)
            norm(f"_blocks.{i}._bn0", inner)
        conv(f"_blocks.{i}._depthwise_conv", inner, 1, kernel, kernel)
        norm(f"_blocks.{i}._bn1", inner)
        conv(f"_blocks.{i}._project_conv", channels, inner, 1, 1)
        norm(f"_blocks.{i}._bn2", channels)
        width = channels
    conv("_conv_head", 1280, 8, 1, 1)
    norm("_bn1", 1280)
    arrays["_fc.weight"], arrays["_fc.bias"] = rng.normal(size=(3, 1280)), rng.normal(size=3)
    return arrays


def test_every_array_has_its_place(published):
    variables = convert(published, MODEL)
    params, stats = variables["params"], variables["batch_stats"]
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    expected = {name: array.astype(np.float32) for name, array in published.items()}
    np.testing.assert_array_equal(
        params["stem"]["kernel"][2, 1, 0, 5], expected["_conv_stem.weight"][5, 0, 2, 1]
    )
    for layer, name in {
        "block_1/depthwise": "_blocks.1._depthwise_conv",
        "block_2/expand": "_blocks.2._expand_conv",
    }.items():
        kernel = params[layer.split("/")[0]][layer.split("/")[1]]["kernel"]
        np.testing.assert_array_equal(np.einsum("hwio->oihw", kernel), expected[f"{name}.weight"])
    np.testing.assert_array_equal(params["classifier"]["kernel"], expected["_fc.weight"].T)
    np.testing.assert_array_equal(params["classifier"]["bias"], expected["_fc.bias"])
    norms = {"stem_norm": "_bn0", "head_norm": "_bn1", "block_0/depthwise_norm": "_blocks.0._bn1"}
    norms |= {"block_1/expand_norm": "_blocks.1._bn0", "block_2/project_norm": "_blocks.2._bn2"}
    for place, name in norms.items():
        ours, theirs = params, stats
        for part in place.split("/"):
            ours, theirs = ours[part], theirs[part]
        np.testing.assert_array_equal(ours["scale"], expected[f"{name}.weight"])
        np.testing.assert_array_equal(ours["bias"], expected[f"{name}.bias"])
        np.testing.assert_array_equal(theirs["mean"], expected[f"{name}.running_mean"])
        np.testing.assert_array_equal(theirs["var"], expected[f"{name}.running_var"])
    tracked = sum(name.endswith("tracked") for name in published)
    assert len(jax.tree.leaves(variables)) == len(published) - tracked


@pytest.mark.parametrize("name", ["_conv_head.weight", "_blocks.2._bn1.running_var", "_fc.bias"])
def test_a_missing_array_and_one_of_another_shape_are_reported(published, name):
    less = {key: array for key, array in published.items() if key != name}
    with pytest.raises(ValueError, match=r"x\.pth does not fit.*none"):
        convert(less, MODEL, "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth does not fit.*shape"):
        convert(published | {name: published[name][:1]}, MODEL, "x.pth")


@pytest.mark.parametrize(
    "name",
    ["fc.weight", "_blocks.0._se_reduce.weight", "conv1", "_blocks.9._bn1.bias", "_fc.other"],
)
def test_an_array_of_another_network_is_reported(published, name):
    with pytest.raises(ValueError, match=r"x\.pth (is of another network.*has no|does not fit)"):
        convert(published | {name: np.ones(3)}, MODEL, "x.pth")
