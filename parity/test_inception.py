"""Inception-v3 in the FID variant against torch-fidelity's, with the same random weights.

From uint8 pictures to features.
"""

import importlib.util
import sys
import types
from unittest import mock

import jax
import numpy as np
import pytest
import torch
import torch.hub  # torch-fidelity imports it, and it must outlive the patch below
from safetensors.torch import save_file

from t2i_jax.features import extractor
from t2i_jax.features import inception as ours


@pytest.fixture(scope="module")
def theirs():
    """torch-fidelity's two modules, without the torchvision that its package would import."""
    package = types.ModuleType("torch_fidelity")
    package.__path__ = importlib.util.find_spec("torch_fidelity").submodule_search_locations
    with mock.patch.dict(sys.modules, {"torch_fidelity": package}):
        from torch_fidelity import feature_extractor_inceptionv3 as inception
        from torch_fidelity import interpolate_compat_tensorflow as interpolate
    return types.SimpleNamespace(
        inception=inception, resize=interpolate.interpolate_bilinear_2d_like_tensorflow1x
    )


@pytest.fixture(scope="module")
def original(theirs, tmp_path_factory):
    """Their network and its file. Weights keep the second moment of each layer near one."""
    kind = theirs.inception.FeatureExtractorInceptionV3
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({}, path)
    with mock.patch.object(kind, "load_state_dict"):  # it needs a file
        net = kind("random", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
    r = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if "num_batches" in name:
            continue
        if value.ndim > 1:
            fan_in = value[0].numel()
            value.copy_(torch.randn(value.shape, generator=r) * (2 / fan_in) ** 0.5)
        elif name.endswith(("bn.weight", "running_var")):
            value.copy_(torch.rand(value.shape, generator=r) * 0.8 + 0.6)
        else:  # biases and running means
            value.copy_(torch.randn(value.shape, generator=r) * 0.2)
    torch.save(net.state_dict(), path)
    return net, path


def _pictures(count, height, width):
    """Pictures with structure of every size, from smooth to noise."""
    r = np.random.default_rng(0)
    coarse = r.integers(0, 256, (count, 4, 4, 3))
    smooth = coarse.repeat(-(-height // 4), 1).repeat(-(-width // 4), 2)[:, :height, :width]
    noise = r.integers(0, 256, smooth.shape)
    share = np.linspace(0, 1, count)[:, None, None, None]
    return (smooth * (1 - share) + noise * share).astype(np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (299, 299), (512, 300), (1, 5)])
def test_resize(theirs, size):
    pictures = _pictures(2, *size)
    expected = theirs.resize(
        torch.tensor(pictures).permute(0, 3, 1, 2).float(), (299, 299), align_corners=False
    )
    found = jax.jit(ours.resize)(pictures.astype(np.float32))
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=1e-4)  # of 255 levels


def test_features_and_logits(original):
    net, path = original
    pictures = _pictures(3, 64, 48)
    expected = dict(
        zip(("features", "logits"), net(torch.tensor(pictures).permute(0, 3, 1, 2)), strict=True)
    )
    made = extractor.load("inception", str(path))
    found = jax.jit(made.apply)(made.weights, pictures)
    assert made.fid and found["features"].shape == (3, 2048) and found["logits"].shape == (3, 1008)
    for name, value in expected.items():
        value = value.numpy()
        scale = value.std()
        assert 0.01 < scale < 100  # neither dead nor exploding
        assert value.std(axis=0).mean() > 0.02 * scale  # pictures have different features
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * scale, err_msg=name)


def test_safetensors_hold_the_same(original, tmp_path):
    net, path = original
    file = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, file)
    jax.tree.map(
        np.testing.assert_array_equal, ours.make(str(file)).weights, ours.make(str(path)).weights
    )
