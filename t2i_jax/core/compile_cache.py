"""Compiled programs on disk, so that a second process starts sooner."""

import os

import jax

from t2i_jax.core.files import data_dir


def keep_compiled_programs() -> None:
    """Keep compiled programs in the data folder, unless JAX has a compilation cache already."""
    own = jax.config.values["jax_compilation_cache_dir"]
    if not (own or os.environ.get("JAX_COMPILATION_CACHE_DIR")):
        jax.config.update("jax_compilation_cache_dir", str(data_dir() / "compiled"))
