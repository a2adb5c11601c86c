"""Does the model draw different pictures, and its own? And did its training come to rest? On the host, in float64.

Distances are Euclidean, between features [N, D] of any extractor; which one, the caller says with the number.
"""

from collections.abc import Sequence

import numpy as np

from t2i_jax.metrics.distances import checked, checked_pair, mean_distance, nearest, unit_length

REAL = ("the generated features", "the real features")


def pairwise_distance(features: np.ndarray, group: Sequence) -> dict:
    """The mean distance between two samples of one caption; features [N, D], group [N] the caption (or its number) of each.

    {"value": the mean over captions, "standard_error": of it over captions (None for one caption), "groups": {caption: its
    mean distance}}; captions with one sample are left out. Raises ValueError if there is no other, or NaN.
    """
    features, group = checked(features), np.asarray(group)
    if group.shape != features.shape[:1]:
        raise ValueError(f"there are {len(features):,} features, and groups of shape {list(group.shape)}")
    names, where, counts = np.unique(group, return_inverse=True, return_counts=True)
    order = np.split(np.argsort(where, kind="stable"), np.cumsum(counts)[:-1])
    means = {name: mean_distance(features[rows]) for name, rows in zip(names.tolist(), order, strict=True) if len(rows) > 1}
    if not means:
        raise ValueError("no caption has two samples: draw several pictures of each")
    values = np.array(list(means.values()))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "standard_error": error, "groups": means}


def nearest_training(features: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of features [N, D] the nearest of training [M, D]: its index, int64 [N], and its distance, float64 [N].

    The distance of a copy is exactly 0. Raises ValueError for NaN or other dimensions.
    """
    features, training = checked_pair(features, training, ("features", "the training features"))
    distance, index = nearest(features, training)
    return index[:, 0], distance[:, 0]


def memorised(features: np.ndarray, training: np.ndarray, held_out: np.ndarray, quantile: float = 0.05) -> dict:
    """The share of generated samples that are as near to a training picture as only few real, held-out pictures are.

    {"value": the share, "threshold": the distance: the `quantile` of those of the held-out pictures to their nearest training
    picture, "quantile", "index" and "distance" [N] of each sample's nearest training picture}. A model that draws as if from
    the data has a value near `quantile`. Raises ValueError for NaN, other dimensions, or fewer than 1 / quantile held-out
    pictures, which have no such quantile.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, not be {quantile}")
    held_out = checked(held_out, "the held-out features", least=int(np.ceil(1 / quantile)))
    index, distance = nearest_training(features, training)
    threshold = float(np.quantile(nearest_training(held_out, training)[1], quantile))
    share = float((distance <= threshold).mean())
    return {"value": share, "threshold": threshold, "quantile": quantile, "index": index, "distance": distance}


def vendi_score(features: np.ndarray) -> float:
    """The effective number of distinct samples of features [N, D], from 1 to min(N, D) (arXiv 2210.02410, definition 3.1).

    exp of the entropy of the eigenvalues of K / N, with the cosine kernel; those of the smaller of the matrices of samples
    and of dimensions, which are the same. Raises ValueError for NaN or a zero row.
    """
    features = unit_length(checked(features))
    smaller = features if features.shape[0] <= features.shape[1] else features.T
    values = np.linalg.eigvalsh(smaller @ smaller.T / len(features))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def mode_collapse(features: np.ndarray, group: Sequence, real: np.ndarray, real_group: Sequence) -> dict:
    """Signs of collapse in generated features [N, D] beside as many real ones [M, D]: of both the first min(N, M) are used.

    {"distance": the mean distance of two samples as a part of the real one; "within": the same for two samples of one caption
    (None if the generated or the real pictures have no caption twice); "vendi" and "vendi_real": the effective numbers of
    distinct samples; "duplicates": the share of samples nearer to another one than 1 % of the real pictures are}. Without
    collapse these are near 1, 1, equal, and 0.01. group and real_group hold the captions. Raises ValueError for fewer than 2
    samples, NaN, a zero row, other dimensions, or real pictures that are all alike.
    """
    features, real = checked_pair(features, real, REAL, least=2)
    if (len(group), len(real_group)) != (len(features), len(real)):
        raise ValueError(f"{len(group):,} and {len(real_group):,} captions for {len(features):,} and {len(real):,} pictures")
    count = min(len(features), len(real))
    features, real, group, real_group = features[:count], real[:count], group[:count], real_group[:count]
    spread = mean_distance(real)
    if spread == 0:
        raise ValueError("the real pictures are all alike, there is no diversity to compare with")
    twice = all(len(set(np.asarray(names).tolist())) < count for names in (group, real_group))
    within = pairwise_distance(features, group)["value"] / pairwise_distance(real, real_group)["value"] if twice else None
    gap, gap_real = (nearest(x, x, 2)[0][:, 1] for x in (features, real))
    return {
        "distance": mean_distance(features) / spread,
        "within": within,
        "vendi": vendi_score(features),
        "vendi_real": vendi_score(real),
        "duplicates": float((gap <= np.quantile(gap_real, 0.01)).mean()),
    }


def convergence(steps: Sequence[float], losses: Sequence[float]) -> dict:
    """A loss curve in plain data; steps [N], rising, and losses [N].

    {"final": the mean of the last tenth, "best" and "best_step": the least loss and where, "slope" and "slope_error": a step,
    of a straight line through the last quarter, and its standard error (noise taken as independent), "falls": whether the
    slope is below 0 by two of them, "spikes": how often the curve leaps more than 6 robust standard deviations above its
    running median of 9 (neighbours are one leap, the ends none), "not_finite": losses that are NaN or infinite, left out of all
    else}. The slope is None with fewer than 3 finite losses in the last quarter. Raises ValueError if there is no finite loss,
    or steps do not rise.
    """
    steps, losses = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    if steps.ndim != 1 or steps.shape != losses.shape or (np.diff(steps) <= 0).any():
        raise ValueError(f"steps must rise, one a loss: {list(steps.shape)} steps, {list(losses.shape)} losses")
    finite = np.isfinite(losses)
    if not finite.any():
        raise ValueError(f"none of the {len(losses):,} losses is a finite number")
    late = finite & (steps >= steps[-1] - (steps[-1] - steps[0]) / 4)
    slope, error = _line(steps[late], losses[late]) if late.sum() >= 3 else (None, None)
    steps, losses = steps[finite], losses[finite]
    best = int(losses.argmin())
    return {
        "final": float(losses[-max(1, len(losses) // 10) :].mean()),
        "best": float(losses[best]),
        "best_step": float(steps[best]),
        "slope": slope,
        "slope_error": error,
        "falls": None if slope is None else bool(slope < -2 * error),
        "spikes": _spikes(losses),
        "not_finite": int((~finite).sum()),
    }


def _line(x, y):
    """The slope of the least-squares line and its standard error."""
    x = x - x.mean()
    slope = x @ y / (x @ x)
    rest = y - y.mean() - slope * x
    return float(slope), float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))


def _spikes(losses):
    padded = np.pad(losses, 4, mode="reflect", reflect_type="odd")  # a slope goes on beyond the ends: it is not a leap there
    away = losses - np.median(np.lib.stride_tricks.sliding_window_view(padded, 9), axis=1)
    high = away > 6 * 1.4826 * np.median(np.abs(away)) + 1e-12 * np.abs(losses).max()
    return int((high[1:] & ~high[:-1]).sum())
