"""Eight virtual CPU devices, one data folder and one compile cache for the whole test session."""

import os

# Most of the time goes to compiling tiny models: without LLVM's optimizations it takes half as long.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import jax
import numpy as np
import pytest

from t2i_jax import config as configs

ROOT = Path(__file__).parent.parent
LONGEST = ("test_train.py", "test_parallel.py", "families/test_vqgan.py", "test_first_stage.py", "test_compare.py")  # minutes


def pytest_collection_modifyitems(items):
    """The longest files first, so that none of them is left to one of the two processes while the other has nothing to do."""
    place = {ROOT / "tests" / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory):
    """Prepared data of the session; tests that need a data folder of their own set T2I_JAX_DATA themselves."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["T2I_JAX_DATA"] = str(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))  # tests that compile the same program share it
    return folder


@pytest.fixture
def smoke():
    """smoke("shapes", "train.steps=3", ...) is that config's tiny version with overrides."""
    return lambda name, *overrides: configs.load(f"{ROOT}/configs/{name}.py:smoke", overrides)


@pytest.fixture
def tiny_batch():
    """tiny_batch(config, count): a batch of random pictures and tokens, and the null text that goes with it."""

    def make(config, count=8, seed=0):
        rng = np.random.default_rng(seed)
        side, length = config.data.resolution, config.text.length
        lengths = rng.integers(1, length + 1, count)
        text = {
            "tokens": rng.integers(2, 200, (count, length)).astype(np.int32),
            "mask": np.arange(length) < lengths[:, None],
        }
        null = {"tokens": np.eye(1, length, dtype=np.int32)[0], "mask": np.arange(length) < 1}
        batch = {
            "image": rng.integers(0, 256, (count, side, side, 3)).astype(np.uint8),
            "text": {config.text.encoder: text},
            "index": np.arange(count, dtype=np.int32),
        }
        return batch, {"null_text": {config.text.encoder: null}}

    return make


@pytest.fixture(scope="session")
def one_device():
    return jax.devices()[:1]
