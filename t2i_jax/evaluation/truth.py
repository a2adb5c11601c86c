"""The error of the measures themselves, on true pictures."""

import numpy as np
from jaxtyping import UInt8

from t2i_jax.core.source import Source
from t2i_jax.data.load import load_source
from t2i_jax.evaluation import picture_features
from t2i_jax.metrics import alignment, fidelity, robustness


def evaluate_truth(config, split: str = "test", num: int = 0) -> str:
    """Return, for a person, how the measures judge the true pictures of a split.

    For captions with a grammar: the exact score of true pictures by their own captions, and by
    those of others. Without: the KID of other real pictures, and of pictures with known defects.
    num: how many pictures; 0 for all.
    Raises FileNotFoundError, saying how to get them, if this needs weights that are missing.
    """
    source = load_source(config.data, split)
    count = min(num or len(source.captions), len(source.captions))
    captions, images = list(source.captions[:count]), source.read(np.arange(count))
    if not alignment.can_score(captions):
        return fidelity_of_truth(config, source, images, split)
    shuffled = [captions[i] for i in np.random.default_rng(0).permutation(count)]
    parts = {
        "true pictures, their own captions": captions,
        "true pictures, shuffled captions": shuffled,
    }
    return "\n\n".join(
        f"{title}\n{alignment.format_report(alignment.score(images, wanted))}"
        for title, wanted in parts.items()
    )


def fidelity_of_truth(
    config, source: Source, images: UInt8[np.ndarray, "N H W 3"], split: str
) -> str:
    """Return the KID between `images` and other real pictures, and pictures with known defects."""
    extractor = picture_features.load_extractor(config)
    other_split = "validation" if split != "validation" else "test"
    other = load_source(config.data, other_split)
    index, other_index = np.arange(len(images)), np.arange(len(other.captions))
    real = picture_features.cached_features(extractor, source, index)["features"]
    found = {
        f"real pictures of {other_split}": picture_features.cached_features(
            extractor, other, other_index
        )
    }
    for name, add_noise in robustness.PICTURE_NOISES.items():
        noisy = add_noise(images, 0)
        found[f"{split}, {name}"] = picture_features.extract_features(extractor, noisy)
    lines = [
        f"KID x 1000 from the {len(images):,} pictures of {split} ({extractor.name}, "
        f"{extractor.rule})"
    ]
    for name, features in found.items():
        kid = fidelity.kid(real, features["features"])
        value, low, high = (1000 * kid[key] for key in ("value", "low", "high"))
        lines.append(f"  {name:<28}{value:8.2f}   [{low:.2f}, {high:.2f}]")
    return "\n".join(lines)
