"""Eight virtual CPU devices, one data folder and one compile cache for the whole test session."""

import contextlib
import gc
import os
import re
import socket

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pathlib import Path

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

import tests.array_types  # noqa: F401 (the hook finds its checker by this name)

# Before t2i_jax is imported: arrays of a wrong shape fail where they are made.
install_import_hook("t2i_jax", "tests.array_types.check_arrays")

from t2i_jax import config as configs  # noqa: E402

# Most of the time goes to compiling tiny models: without LLVM's optimizations it is halved, and
# without the emitters of fusions, which JAX 0.11 cannot leave out, halved again.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
FLAGS.append("--xla_gpu_deterministic_ops=true")  # a resumed run is compared bit for bit
if jax.__version_info__ < (0, 11):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

# Tracing makes millions of small objects, and JAX adds work of its own to each search for garbage:
# with Python's own thresholds, these searches take a fifth of the time.
gc.set_threshold(200_000, 20, 20)

ROOT = Path(__file__).parent.parent
MAX_MAPPINGS = 25_000
LONGEST = (  # minutes
    "training/test_loop.py",
    "training/test_parallel.py",
    "families/test_contract.py",
    "families/test_vqgan.py",
    "families/test_first_stage.py",
    "evaluation/test_compare.py",
)


def flags_for(devices: int) -> str:
    """Return XLA_FLAGS of a process of its own, with so many devices."""
    name = "--xla_force_host_platform_device_count="
    return re.sub(rf"{name}\d+", f"{name}{devices}", os.environ["XLA_FLAGS"])


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def last_values(overrides) -> list[str]:
    """Return the overrides "key=value" with one for each key: the last."""
    last = dict(override.split("=", 1) for override in overrides)
    return [f"{key}={value}" for key, value in last.items()]


def write_untrained_run(config, workdir, change=lambda params: params) -> None:
    """Make a run folder with a model as it is before the first step: nothing is compiled for it.

    change: (parameters) -> those that are written, such as others than the zeros of a last layer.
    """
    # Here: they import JAX's numpy, which reads XLA_FLAGS.
    from t2i_jax.core.state import TrainState
    from t2i_jax.data import loader
    from t2i_jax.runs import checkpoint, prepare

    prepared = prepare.prepare_run(config, Path(workdir))
    prepared.lock.close()
    batch = loader.make_batch(*prepared.training, np.arange(2))
    params, extra = jax.jit(prepared.family.init)(jax.random.key(0), batch)
    ema = {"params": change(params), "extra": extra}
    with checkpoint.open_manager(workdir) as manager:
        checkpoint.save(manager, TrainState(0, {}, {}, {}, ema, jax.random.key(0)), {})


class StridedMaps:
    """In place of EfficientNetLite where a style is taken: maps of the same shapes, of pixels."""

    def apply(self, weights, x):
        """Return maps whose channels are those of each 2^i-th pixel, times one of the weights."""
        maps = []
        for i, channels in enumerate((16, 24, 40, 112, 320)):
            part = x[:, :: 2 ** (i + 1), :: 2 ** (i + 1)]
            maps.append(part[..., np.arange(channels) % 3] * weights["factors"][:channels])
        return {"maps": maps}


@pytest.fixture(scope="module")
def strided_maps():
    """The family adain with StridedMaps, which need no weights that have to be fetched."""
    from t2i_jax.families import adain
    from t2i_jax.features import efficientnet_lite0
    from t2i_jax.features.extractor import Extractor

    factors = np.random.default_rng(0).uniform(0.5, 2.0, 320).astype(np.float32)
    extractor = Extractor("maps", "none", {"factors": factors}, efficientnet_lite0.apply)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite0, "make", lambda path="": extractor)
        patch.setattr(adain, "EfficientNetLite", StridedMaps)
        yield


def pytest_collection_modifyitems(items):
    """Put the longest files first, so that neither process is left with one of them at the end."""
    place = {ROOT / "tests" / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory):
    """The data folder of the session; a test that needs its own sets T2I_JAX_DATA itself."""
    folder = tmp_path_factory.mktemp("data")
    os.environ["T2I_JAX_DATA"] = str(folder)
    # Tests that compile the same program share it, in both processes.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(shared / "compiled")
    jax.config.update("jax_compilation_cache_dir", str(shared / "compiled"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def room_for_programs():
    """Forget compiled programs when there are many.

    Linux gives a process 65,530 memory mappings. A program takes several, and JAX crashes when
    none is left.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MAX_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def smoke():
    """smoke("shapes", "train.steps=3", ...) is that config's tiny version with overrides.

    Of several values for one field, the last counts.
    """

    return lambda name, *overrides: configs.load(
        f"{ROOT}/configs/{name}.py:smoke", last_values(overrides)
    )


@pytest.fixture
def tiny_batch():
    """tiny_batch(config, count): a batch of random pictures and tokens, and its null text."""

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


@contextlib.contextmanager
def training_on_one_device():
    """Inside, training uses the first of the eight devices: its step is compiled in less time."""
    from t2i_jax.training import parallel

    real = parallel.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            parallel,
            "make",
            lambda config, devices=None: real(config, devices or jax.devices()[:1]),
        )
        yield


@pytest.fixture
def on_one_device():
    with training_on_one_device():
        yield
