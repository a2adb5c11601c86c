"""FID, KID, IS, precision and recall against torch-fidelity's functions, on the same features."""

import importlib
import sys
import types
from unittest import mock

import numpy as np
import pytest
import torch
import torch.hub  # torch-fidelity imports these two, and they must outlive the patch below
import torch.utils.data

from t2i_jax.metrics import fidelity

NAMES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


REAL = normal(0, 700, 64) @ normal(1, 64, 64) / 8 + 0.5
FAKE = normal(2, 600, 64) @ normal(3, 64, 64) / 7 + 0.6


@pytest.fixture(scope="module")
def theirs():
    """torch-fidelity's metrics. They import torchvision, which no statistic needs: it is empty."""
    stubs = {name: types.ModuleType(name) for name in NAMES}
    for data in ("CIFAR10", "CIFAR100", "STL10"):
        setattr(stubs["torchvision.datasets"], data, object)
    stubs["torchvision.transforms"].functional = stubs["torchvision.transforms.functional"]
    with mock.patch.dict(sys.modules, stubs):
        found = {
            name: importlib.import_module(f"torch_fidelity.metric_{name}")
            for name in ("fid", "kid", "isc", "prc")
        }
    return types.SimpleNamespace(**found)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_frechet_distance(theirs, size):
    expected = theirs.fid.fid_statistics_to_metric(
        *(theirs.fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (REAL, FAKE)),
        verbose=False,
    )
    real, fake = (
        fidelity.moments(x[i : i + size] for i in range(0, len(x), size)) for x in (REAL, FAKE)
    )
    found = fidelity.frechet_distance(real, fake)
    assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-9) and found > 1


def test_kid_of_subsets(theirs):
    settings = {"kid_subsets": 20, "kid_subset_size": 300, "verbose": False}
    expected = theirs.kid.kid_features_to_metric(
        torch.from_numpy(REAL), torch.from_numpy(FAKE), **settings
    )
    found = fidelity.kid_of_subsets(REAL, FAKE, subsets=20, size=300)
    assert found["value"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert found["std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)


def test_kid_of_all_samples(theirs):
    settings = {"kid_subsets": 1, "kid_subset_size": 600, "verbose": False}
    expected = theirs.kid.kid_features_to_metric(
        torch.from_numpy(REAL[:600]), torch.from_numpy(FAKE), **settings
    )
    found = fidelity.kid(REAL[:600], FAKE)
    assert found["value"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert found["low"] < found["value"] < found["high"]


def test_inception_score(theirs):
    logits = np.random.default_rng(4).normal(size=(537, 40)) * 2
    expected = theirs.isc.isc_features_to_metric(torch.from_numpy(logits), splits=10, shuffle=False)
    found = fidelity.inception_score(logits)
    assert found["value"] == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert found["std"] == pytest.approx(expected["inception_score_std"], rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_precision_and_recall(theirs, k):
    real, fake = REAL[:, :5], FAKE[:, :5] * 0.7  # few dimensions, in which balls meet
    expected = theirs.prc.prc_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        prc_neighborhood=k,
        prc_batch_size=100,
        save_cpu_ram=True,
        verbose=False,
    )
    found = fidelity.precision_recall(real, fake, k)
    assert found == pytest.approx(
        {name: expected[name] for name in ("precision", "recall")}, rel=1e-6
    )
    assert 0 < found["recall"] < found["precision"] < 1
