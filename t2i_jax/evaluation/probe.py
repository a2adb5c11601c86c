"""A self-trained probe: a linear map from picture features to sentence embeddings.

It brings pictures and captions of any data into one space. It is no CLIP: its numbers depend on the
training split that it was fitted to, so read them beside those of real held-out pictures.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from t2i_jax.metrics import retrieval

PENALTIES = tuple(10.0**k for k in range(-5, 4))  # per training picture
NAMES = ("the image features", "the embeddings")  # for messages


class Probe(NamedTuple):
    """Embeddings [N, E] are (features [N, D] - mean) / scale @ weights + offset.

    penalty: the ridge penalty that was chosen.
    """

    mean: Float[np.ndarray, "D"]
    scale: Float[np.ndarray, "D"]
    weights: Float[np.ndarray, "D E"]
    offset: Float[np.ndarray, "E"]
    penalty: float


def fit(
    features: Float[np.ndarray, "N D"], embeddings: Float[np.ndarray, "M E"], seed: int = 0
) -> Probe:
    """Fit a probe to the pictures and captions of the training split, by ridge regression.

    Minimises |Y - X W|² / N + penalty |W|² for standardised X and centred Y, in closed form and in
    float64. The penalty is the one of PENALTIES with the smallest squared error on a tenth of the
    pictures, drawn by `seed`, of a fit to the others. Then all pictures are fitted.

    Raises ValueError for different lengths (N and M), fewer than retrieval.MIN_PAIRS pictures, NaN
    or infinity.
    """
    x, y = retrieval.checked_pairs(features, embeddings, NAMES)
    order = np.random.default_rng(seed).permutation(len(x))
    held_out, rest = np.split(order, [len(x) // 10])
    errors = [
        np.mean((predict(probe, x[held_out]) - y[held_out]) ** 2)
        for probe in _ridge(x[rest], y[rest], PENALTIES)
    ]
    return next(_ridge(x, y, [PENALTIES[int(np.argmin(errors))]]))


def predict(probe: Probe, features: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N E"]:
    """Return the embeddings, float64, that the probe predicts for picture features."""
    return (features - probe.mean) / probe.scale @ probe.weights + probe.offset


def recall(
    probe: Probe,
    features: Float[np.ndarray, "N D"],
    embeddings: Float[np.ndarray, "M E"],
    captions: Sequence[str],
    seed: int = 0,
) -> dict:
    """Return {"label": "self-trained probe"} and the report of `retrieval.recall`.

    features, embeddings: of N pictures and of their captions. Raises ValueError as `fit` and
    `retrieval.recall` do.
    """
    x, y = retrieval.checked_pairs(features, embeddings, NAMES)
    return {
        "label": "self-trained probe",
        **retrieval.recall(predict(probe, x), y, captions, seed),
    }


def _ridge(x, y, penalties) -> Iterator[Probe]:
    """Yield a probe for each penalty; all share one decomposition."""
    mean, offset = x.mean(0), y.mean(0)
    scale = x.std(0)
    # A feature that is constant up to rounding has no information, and is not scaled.
    scale = np.where(scale > 1e-12 * (1 + abs(mean)), scale, 1.0)
    z = (x - mean) / scale
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    target = vectors.T @ (z.T @ (y - offset) / len(z))
    for penalty in penalties:
        weights = vectors @ (target / (np.maximum(values, 0) + penalty)[:, None])
        yield Probe(mean, scale, weights, offset, penalty)
