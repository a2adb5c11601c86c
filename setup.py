"""Package definition. Ranges are what was tested; `requirements*.lock` hold exact versions."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# What preparing data and reading it ahead use. Nothing else imports these.
TRAIN = [
    "array_record>=0.7",
    "importlib_resources>=6",  # tensorflow-datasets 4.9.10 imports it undeclared
    "tensorflow-cpu>=2.19; sys_platform == 'linux'",
    "tensorflow>=2.19; sys_platform != 'linux'",
    "tensorflow-datasets>=4.9.9,<5",
]


class BuildWithConfigs(build_py):
    """Put a copy of `configs/` into the package of a wheel. A checkout uses `configs/` itself."""

    def run(self):
        """Build the package, then copy the configs."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "t2i_jax", "configs")
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(Path("configs").glob("*.py")):
                shutil.copy(file, target)


setup(
    name="t2i_jax",
    version="0.1.0",
    description="Text-to-image in JAX: every family of model, one training loop, one evaluation",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["t2i_jax", "t2i_jax.*"]),
    package_data={"t2i_jax": ["py.typed", "published/*/*", "published/*/frozen/*"]},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["t2i-jax = t2i_jax.cli:run"]},
    install_requires=[
        "absl-py>=2.1",
        "etils[epath]>=1.9",
        "flax>=0.12,<0.13",
        "jax>=0.10,<0.12",
        "jaxtyping>=0.3.2",
        "matplotlib>=3.9",
        "ml-collections>=1.0,<2",
        "numpy>=2.0,<3",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.11.30,<0.13",
        "pillow>=11",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tensorboardX>=2.6",
        "tokenizers>=0.21",
        "tqdm>=4.66",
    ],
    extras_require={
        "train": TRAIN,
        "test": [
            *TRAIN,
            "basedpyright>=1.40",
            "beartype>=0.22",
            "hypothesis>=6",
            "import-linter>=2.3",
            "ipykernel>=6",
            "nbclient>=0.10",
            "pyarrow>=15",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "ruff==0.17.6",
            "scikit-image>=0.25",
        ],
        # The originals that `python -m pytest parity` compares with. requirements-parity.lock has
        # what is needed of them: torch-fidelity also asks for torchvision, which nothing here uses.
        "parity": [
            "diffusers>=0.42",
            "onnx>=1.20",
            "onnxruntime>=1.23",
            "scikit-image>=0.25",
            "torch==2.13.0",
            "torch-fidelity==0.4.0",
            "transformers>=5",
        ],
        "docs": ["mkdocs-material>=9.7,<10", "mkdocstrings[python]>=1.0,<2"],
        "parquet": ["pyarrow>=15"],  # for the data source of that name
        "bench": ["torch==2.13.0", "diffusers>=0.35,<1"],
        "gcs": ["gcsfs>=2025.2", "google-cloud-storage>=3"],  # run folders in a bucket
        "wandb": ["wandb>=0.20"],
        "mlflow": ["mlflow>=3"],
        "sweep": ["optuna>=4,<6"],
        "ui": ["gradio>=6.30,<7"],  # brings fastapi and uvicorn
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
)
