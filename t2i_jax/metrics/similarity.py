"""How similar is each picture to its own original? One number per pair, float64 [N].

Arguments are checked, so they are annotated loosely.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num
from scipy.ndimage import correlate1d

from t2i_jax.core.types import AnyArray, Numbers

# The Gaussian window of SSIM is 11 px wide and has a sigma of 1.5 px.
RADIUS_PX = 5
WINDOW = np.exp(-0.5 * (np.arange(-RADIUS_PX, RADIUS_PX + 1) / 1.5) ** 2)
WINDOW /= WINDOW.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
# The exponents of MS-SSIM, the finest scale first.
SCALE_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

Checked = Num[AnyArray, "..."]


def psnr(a: Checked, b: Checked) -> Float[np.ndarray, "N"]:
    """Return the peak signal-to-noise ratio in dB: 10 log10(255² / mean squared difference).

    It is infinite for equal pictures. Raises ValueError if the pictures are not uint8 [N, H, W, 3],
    or of different shapes.
    """
    a, b = _pairs(a, b)
    error = np.array([np.mean((x.astype(np.float64) - y) ** 2) for x, y in zip(a, b, strict=True)])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim(a: Checked, b: Checked) -> Float[np.ndarray, "N"]:
    """Return the structural similarity, 1 for equal pictures.

    It is the mean over channels and over all places of a Gaussian window (11 px, sigma 1.5) that
    lies completely in the picture. Source: Wang et al. 2004, doi 10.1109/TIP.2003.819861, equation
    13.

    Raises ValueError if the pictures are not uint8 [N, H, W, 3], of different shapes, or smaller
    than 11 px.
    """
    return ms_ssim(a, b, (1.0,))


def ms_ssim(
    a: Checked, b: Checked, exponents: Sequence[float] = SCALE_EXPONENTS
) -> Float[np.ndarray, "N"]:
    """Return the multi-scale structural similarity, in [-1, 1].

    It is the product over scales of contrast and structure, and of luminance at the last scale, for
    each channel; then the mean over channels. A negative contrast-structure term counts as 0,
    because it has no fractional power. Source: Wang et al. 2003, doi 10.1109/ACSSC.2003.1292216,
    equation 7.

    exponents: one per scale. Each scale is half as fine as the one before (means of 2 x 2 px; an
        odd last row or column is left out).

    Raises ValueError as `ssim` does, and if a side is less than 11 px at the last scale: five
    scales need 176 px.
    """
    a, b = _pairs(a, b)
    need = len(WINDOW) * 2 ** (len(exponents) - 1)
    if min(a.shape[1:3]) < need:
        raise ValueError(
            f"pictures of {a.shape[2]} x {a.shape[1]} px are too small: {len(exponents)} "
            f"scale{'s'[: len(exponents) > 1]} of an 11 px window need {need} px a side"
        )
    return np.array(
        [
            _structure(x.astype(np.float64), y.astype(np.float64), exponents)
            for x, y in zip(a, b, strict=True)
        ]
    )


def perceptual_distance(
    maps_a: Sequence[Checked], maps_b: Sequence[Checked], weights: Sequence[Numbers] | None = None
) -> Float[np.ndarray, "N"]:
    """Return an LPIPS-style distance of feature maps (arXiv 1801.03924, equation 1).

    The features at each place are scaled to unit length. Their squared difference is summed over
    channels, each times its weight, averaged over places and summed over layers.

    maps_a, maps_b: one array [N, h, w, c] per layer, of the same layers.
    weights: one array [c] per layer, such as those of LPIPS's 1 x 1 convolutions (w² of the
        equation). By default each weight is 1; the number is then not LPIPS, but twice a cosine
        distance, summed over layers.

    Raises ValueError if the layers differ in number or shape, or hold NaN.
    """
    weights = [1.0] * len(maps_a) if weights is None else weights
    if not len(maps_a) == len(maps_b) == len(weights) or not len(maps_a):
        raise ValueError(
            f"{len(maps_a)} and {len(maps_b)} layers of features, and weights for {len(weights)}"
        )
    total = np.zeros(())
    for layer, (a, b, weight) in enumerate(zip(maps_a, maps_b, weights, strict=True)):
        a, b, weight = (np.asarray(x, np.float64) for x in (a, b, weight))
        if a.shape != b.shape or a.ndim != 4 or weight.shape not in ((), a.shape[3:]):
            raise ValueError(
                f"layer {layer}: maps must be of one shape [N, h, w, c] and weights of [c], "
                f"they are {list(a.shape)}, {list(b.shape)} and {list(weight.shape)}"
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError(f"layer {layer} of the feature maps holds NaN or infinity")
        total = total + ((_directions(a) - _directions(b)) ** 2 * weight).sum(3).mean((1, 2))
    return total


def _pairs(a, b):
    a, b = np.asarray(a), np.asarray(b)
    for pictures in (a, b):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(
                "pictures must be uint8 [N, H, W, 3], "
                f"these are {pictures.dtype} {list(pictures.shape)}"
            )
    if a.shape != b.shape:
        raise ValueError(
            "pictures can be compared in pairs of one size: "
            f"{list(a.shape)} and {list(b.shape)} were given"
        )
    return a, b


def _structure(a, b, exponents):
    """Return the product over scales for one pair, float64 [H, W, 3], averaged over channels."""
    product = 1.0
    for scale, exponent in enumerate(exponents, 1):
        mean_a, mean_b, square_a, square_b, both = _windows(np.stack([a, b, a * a, b * b, a * b]))
        spread = square_a - mean_a**2 + square_b - mean_b**2
        similar = (2 * (both - mean_a * mean_b) + C2) / (spread + C2)
        if scale == len(exponents):
            similar = similar * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        else:
            a, b = _halved(a), _halved(b)
        similar = similar.mean((0, 1))
        product = product * (similar if exponent == 1 else np.maximum(similar, 0) ** exponent)
    return np.mean(product)


def _windows(maps):
    """Return the Gaussian mean around each place of [S, H, W, 3]: [S, H - 10, W - 10, 3].

    Places whose window is not completely in the picture are left out.
    """
    maps = correlate1d(maps, WINDOW, axis=1)[:, RADIUS_PX:-RADIUS_PX]
    return correlate1d(maps, WINDOW, axis=2)[:, :, RADIUS_PX:-RADIUS_PX]


def _halved(picture):
    """Return [H, W, C] at half the resolution: means of 2 x 2 px."""
    h, w = picture.shape[0] // 2, picture.shape[1] // 2
    return picture[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean((1, 3))


def _directions(maps):
    """Scale to unit length along the last axis. A zero vector stays zero."""
    return maps / np.maximum(np.linalg.norm(maps, axis=-1, keepdims=True), 1e-10)
