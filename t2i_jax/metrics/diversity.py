"""Does the model draw diverse pictures, and pictures of its own? Has its training converged?

Computed on the host in float64. Distances are Euclidean, between features [N, D] of any extractor.
Whoever prints a number names the extractor.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64, Num, Shaped

from t2i_jax.core.types import AnyArray
from t2i_jax.metrics.distances import checked, checked_pair, mean_distance, nearest, unit_length

NAMES = ("the generated features", "the real features")  # for messages
HELD_OUT = "the held-out features"
SPIKE_DEVIATIONS = 6  # robust standard deviations above the running median
SPIKE_WINDOW = 9  # losses in the running median

Groups = Sequence | Shaped[np.ndarray, "_"]  # captions, or their numbers
Series = Sequence[int | float] | Num[np.ndarray, "..."]


def pairwise_distance(features: Float[AnyArray, "N D"], group: Groups) -> dict:
    """Return the mean distance between two samples of one caption.

    "value": the mean over captions.
    "standard_error": of that mean, over captions; None for one caption.
    "groups": {caption: its mean distance}. Captions with one sample are left out.

    group: the caption (or its number) of each sample.

    Raises ValueError if no caption has two samples, or for NaN.
    """
    features, groups = checked(features), np.asarray(group)
    if groups.shape != features.shape[:1]:
        raise ValueError(
            f"there are {len(features):,} features, and groups of shape {list(groups.shape)}"
        )
    names, where, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.split(np.argsort(where, kind="stable"), np.cumsum(counts)[:-1])
    means = {
        name: mean_distance(features[rows])
        for name, rows in zip(names.tolist(), order, strict=True)
        if len(rows) > 1
    }
    if not means:
        raise ValueError("no caption has two samples: draw several pictures of each")
    values = np.array(list(means.values()))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "standard_error": error, "groups": means}


def nearest_training(
    features: Float[AnyArray, "N D"], training: Float[AnyArray, "M E"]
) -> tuple[Int64[np.ndarray, "N"], Float[np.ndarray, "N"]]:
    """Return the index of the nearest training picture of each sample, and its distance.

    The distance of a copy is exactly 0. Raises ValueError for NaN or different dimensions.
    """
    features, training = checked_pair(features, training, ("features", "the training features"))
    distance, index = nearest(features, training)
    return index[:, 0], distance[:, 0]


def memorised(
    features: Float[AnyArray, "N D"],
    training: Float[AnyArray, "M E"],
    held_out: Float[AnyArray, "K F"],
    quantile: float = 0.05,
) -> dict:
    """Return the share of generated samples that are very close to a training picture.

    Very close means: as close as only few of the real, held-out pictures are.

    "value": the share. For a model that draws as if from the data it is near `quantile`.
    "threshold": the `quantile` of the distances of held-out pictures to their nearest training
        picture.
    "quantile": as given.
    "index", "distance": [N], of the nearest training picture of each sample.

    Raises ValueError for NaN, different dimensions, or fewer than 1 / quantile held-out pictures,
    which have no such quantile.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1, not be {quantile}")
    held_out = checked(held_out, HELD_OUT, least=int(np.ceil(1 / quantile)))
    index, distance = nearest_training(features, training)
    threshold = float(np.quantile(nearest_training(held_out, training)[1], quantile))
    share = float((distance <= threshold).mean())
    return {
        "value": share,
        "threshold": threshold,
        "quantile": quantile,
        "index": index,
        "distance": distance,
    }


def vendi_score(features: Float[AnyArray, "N D"]) -> float:
    """Return the effective number of distinct samples, from 1 to min(N, D).

    It is exp of the entropy of the eigenvalues of K / N, where K is the cosine kernel (arXiv
    2210.02410, definition 3.1). Raises ValueError for NaN or a zero row.
    """
    features = unit_length(checked(features))
    # The matrices of samples and of dimensions have the same eigenvalues: take the smaller one.
    smaller = features if features.shape[0] <= features.shape[1] else features.T
    values = np.linalg.eigvalsh(smaller @ smaller.T / len(features))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def mode_collapse(
    features: Float[AnyArray, "N D"],
    group: Groups,
    real: Float[AnyArray, "M E"],
    real_group: Groups,
) -> dict:
    """Return signs of mode collapse in generated features, compared with as many real ones.

    Of both sets, the first min(N, M) are used.

    "distance": the mean distance of two samples, relative to that of two real pictures. Near 1
        without collapse.
    "within": the same for two samples of one caption; None if no caption of the generated or of the
        real pictures occurs twice. Near 1 without collapse.
    "vendi", "vendi_real": the effective numbers of distinct samples. About equal without collapse.
    "duplicates": the share of samples that are closer to another sample than 1 % of the real
        pictures are to another real one. Near 0.01 without collapse.

    group, real_group: the captions.

    Raises ValueError for fewer than 2 samples, NaN, a zero row, different dimensions, or real
    pictures that are all alike.
    """
    features, real = checked_pair(features, real, NAMES, least=2)
    if (len(group), len(real_group)) != (len(features), len(real)):
        raise ValueError(
            f"{len(group):,} and {len(real_group):,} captions "
            f"for {len(features):,} and {len(real):,} pictures"
        )
    count = min(len(features), len(real))
    features, real = features[:count], real[:count]
    group, real_group = group[:count], real_group[:count]
    spread = mean_distance(real)
    if spread == 0:
        raise ValueError("the real pictures are all alike, there is no diversity to compare with")
    twice = all(len(set(np.asarray(names).tolist())) < count for names in (group, real_group))
    within = None
    if twice:
        of_real = pairwise_distance(real, real_group)["value"]
        within = pairwise_distance(features, group)["value"] / of_real
    gap, gap_real = (nearest(x, x, 2)[0][:, 1] for x in (features, real))
    return {
        "distance": mean_distance(features) / spread,
        "within": within,
        "vendi": vendi_score(features),
        "vendi_real": vendi_score(real),
        "duplicates": float((gap <= np.quantile(gap_real, 0.01)).mean()),
    }


def convergence(steps: Series, losses: Series) -> dict:
    """Summarize a loss curve in plain data.

    "final": the mean of the last tenth.
    "best", "best_step": the smallest loss, and its step.
    "slope", "slope_error": change of the loss per step, of a straight line through the last
        quarter, and its standard error (for independent noise). None with fewer than 3 finite
        losses in the last quarter.
    "falls": whether the slope is below 0 by two standard errors.
    "spikes": how often the loss jumps more than SPIKE_DEVIATIONS above its running median.
        Neighbouring jumps count once, jumps at the ends do not count.
    "not_finite": the number of losses that are NaN or infinite. They are left out of all else.

    steps: [N], rising. losses: [N].

    Raises ValueError if there is no finite loss, or steps do not rise.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    if x.ndim != 1 or x.shape != y.shape or (np.diff(x) <= 0).any():
        raise ValueError(
            f"steps must rise, one a loss: {list(x.shape)} steps, {list(y.shape)} losses"
        )
    finite = np.isfinite(y)
    if not finite.any():
        raise ValueError(f"none of the {len(y):,} losses is a finite number")
    late = finite & (x >= x[-1] - (x[-1] - x[0]) / 4)
    slope = error = falls = None
    if late.sum() >= 3:
        slope, error = _line(x[late], y[late])
        falls = bool(slope < -2 * error)
    x, y = x[finite], y[finite]
    best = int(y.argmin())
    return {
        "final": float(y[-max(1, len(y) // 10) :].mean()),
        "best": float(y[best]),
        "best_step": float(x[best]),
        "slope": slope,
        "slope_error": error,
        "falls": falls,
        "spikes": _spikes(y),
        "not_finite": int((~finite).sum()),
    }


def _line(x, y):
    """Return the slope of the least-squares line and its standard error."""
    x = x - x.mean()
    slope = x @ y / (x @ x)
    rest = y - y.mean() - slope * x
    return float(slope), float(np.sqrt(rest @ rest / (len(x) - 2) / (x @ x)))


def _spikes(losses):
    # An odd reflection continues a slope beyond the ends, so that it is no jump there.
    padded = np.pad(losses, SPIKE_WINDOW // 2, mode="reflect", reflect_type="odd")
    windows = np.lib.stride_tricks.sliding_window_view(padded, SPIKE_WINDOW)
    away = losses - np.median(windows, axis=1)
    # 1.4826 median absolute deviations are one standard deviation of a normal distribution.
    threshold = SPIKE_DEVIATIONS * 1.4826 * np.median(np.abs(away))
    high = away > threshold + 1e-12 * np.abs(losses).max()
    return int((high[1:] & ~high[:-1]).sum())
