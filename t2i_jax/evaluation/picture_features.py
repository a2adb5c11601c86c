"""Features of pictures for the measures, and their cache in the data folder."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from t2i_jax.core.family import get_ability
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.source import Source
from t2i_jax.features import extractor as extractors
from t2i_jax.features.clip import resize
from t2i_jax.features.extractor import Extractor
from t2i_jax.pipeline import load
from t2i_jax.runs.run_folder import is_run

EXTRACTOR_BATCH = 64  # pictures


def load_extractor(config) -> Extractor:
    """Return the feature extractor that `config.evaluate` names.

    Raises FileNotFoundError, saying how to get the weights, if they are missing.
    """
    path = config.evaluate.extractor_path
    if path and is_run(path):
        return extractor_of_run(path)
    return extractors.load(config.evaluate.extractor, path)


def extractor_of_run(workdir: str) -> Extractor:
    """Return the extractor of a run that embeds pictures and captions in one space.

    Raises ValueError for a run that does not.
    """
    pipe = load(workdir)
    embed_image, _ = (get_ability(pipe.family, name) for name in ("embed_image", "embed_text"))
    side = pipe.config.data.resolution

    def apply(variables, pictures):
        image = resize(pictures, side, side).astype(jnp.uint8)
        return {"features": embed_image(variables, {"image": image}, None)}

    name, rule = f"run {pipe.weights}", f"bicubic (antialiased) to {side} x {side}"
    return Extractor(name, rule, pipe.variables, apply, embed_text=pipe.embed_text)


def extract_features(
    extractor: Extractor, images: Iterable[np.ndarray]
) -> dict[str, Float[np.ndarray, "N _"]]:
    """Return {"features", and "logits" where the extractor has them} of all pictures, in memory.

    images: an array uint8 [N, H, W, 3], or a stream of arrays [n, H, W, 3].
    """
    stream = extractors.extract(extractor, images, EXTRACTOR_BATCH)
    title = "extracting features"
    parts = list(tqdm(stream, title, unit="batch", leave=False, delay=2, disable=None))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def cached_features(
    extractor: Extractor, source: Source, index: Int[np.ndarray, "N"]
) -> dict[str, Float[np.ndarray, "N _"]]:
    """Return `extract_features` of the pictures of `source` at the positions `index`.

    They are computed once and then read from the data folder.
    """
    weights = (np.asarray(x).tobytes() for x in jax.tree.leaves(extractor.weights))
    name = fingerprint(
        extractor.name, extractor.rule, *weights, source.fingerprint, index.tobytes()
    )[:32]
    path = data_dir() / "picture_features" / f"{name}.npz"
    if not path.is_file():
        starts = range(0, len(index), EXTRACTOR_BATCH)
        blocks = (source.read(index[first : first + EXTRACTOR_BATCH]) for first in starts)
        computed: dict[str, Any] = extract_features(extractor, blocks)
        with atomic_path(path) as part:
            np.savez(part, **computed)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
