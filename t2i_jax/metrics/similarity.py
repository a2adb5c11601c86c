"""How near is each picture to its own original? uint8 pairs [N, H, W, 3] in, one number a pair, float64 [N], out."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d

RADIUS = 5  # px: the Gaussian window of SSIM is 11 wide, its sigma 1.5
WINDOW = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / 1.5) ** 2)
WINDOW /= WINDOW.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the exponents of MS-SSIM, the finest scale first


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB: 10 log10(255² / mean squared difference); infinite for equal pictures.

    Raises ValueError if the pictures are not uint8 [N, H, W, 3], or of different shapes.
    """
    a, b = _pairs(a, b)
    error = np.array([np.mean((x.astype(np.float64) - y) ** 2) for x, y in zip(a, b, strict=True)])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004, doi 10.1109/TIP.2003.819861, equation 13), 1 for equal pictures.

    Gaussian window of 11 px, sigma 1.5, where it lies wholly in the picture; the mean over places and channels. Raises
    ValueError if the pictures are not uint8 [N, H, W, 3], of different shapes, or smaller than 11 px.
    """
    return ms_ssim(a, b, (1.0,))


def ms_ssim(a: np.ndarray, b: np.ndarray, scales: Sequence[float] = SCALES) -> np.ndarray:
    """Multi-scale structural similarity (Wang et al. 2003, doi 10.1109/ACSSC.2003.1292216, equation 7), in [-1, 1].

    `scales` holds the exponent of each scale, each half as fine as the one before (means of 2 x 2 px; an odd last row or
    column is left out): contrast and structure at all, luminance at the last. A channel's product, then the mean of the
    channels. A negative contrast-structure term, which has no fractional power, counts as 0. Raises ValueError as `ssim`
    does, and if a side is less than 11 px at the last scale: 176 px are needed for five scales.
    """
    a, b = _pairs(a, b)
    need = len(WINDOW) * 2 ** (len(scales) - 1)
    if min(a.shape[1:3]) < need:
        raise ValueError(
            f"pictures of {a.shape[2]} x {a.shape[1]} px are too small: {len(scales)} scale{'s'[: len(scales) > 1]} of an "
            f"11 px window need {need} px a side"
        )
    return np.array([_structure(x.astype(np.float64), y.astype(np.float64), scales) for x, y in zip(a, b, strict=True)])


def perceptual_distance(maps_a: Sequence, maps_b: Sequence, weights: Sequence | None = None) -> np.ndarray:
    """LPIPS-style distance (arXiv 1801.03924, equation 1) of the same layers' feature maps, each float [N, h, w, c]: [N].

    The features of each place are brought to unit length; the squared difference is summed over channels, each times its
    weight, averaged over places and summed over layers. `weights`: [c] a layer, as of LPIPS's 1 x 1 convolutions (w² of the
    equation); without them each is 1, and the number is not LPIPS: it is twice a cosine distance, summed over layers. Raises
    ValueError if the layers differ in number or shape, or hold NaN.
    """
    weights = [1.0] * len(maps_a) if weights is None else weights
    if not len(maps_a) == len(maps_b) == len(weights) or not len(maps_a):
        raise ValueError(f"{len(maps_a)} and {len(maps_b)} layers of features, and weights for {len(weights)}")
    total = 0.0
    for layer, (a, b, weight) in enumerate(zip(maps_a, maps_b, weights, strict=True)):
        a, b, weight = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(weight, np.float64)
        if a.shape != b.shape or a.ndim != 4 or weight.shape not in ((), a.shape[3:]):
            raise ValueError(
                f"layer {layer}: maps must be of one shape [N, h, w, c] and weights of [c], they are {list(a.shape)}, "
                f"{list(b.shape)} and {list(weight.shape)}"
            )
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError(f"layer {layer} of the feature maps holds NaN or infinity")
        total = total + ((_directions(a) - _directions(b)) ** 2 * weight).sum(3).mean((1, 2))
    return total


def _pairs(a, b):
    a, b = np.asarray(a), np.asarray(b)
    for pictures in (a, b):
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(f"pictures must be uint8 [N, H, W, 3], these are {pictures.dtype} {list(pictures.shape)}")
    if a.shape != b.shape:
        raise ValueError(f"pictures can be compared in pairs of one size: {list(a.shape)} and {list(b.shape)} were given")
    return a, b


def _structure(a, b, scales):
    """The product over scales for one pair, float64 [H, W, 3], averaged over channels."""
    product = 1.0
    for scale, exponent in enumerate(scales, 1):
        mean_a, mean_b, square_a, square_b, both = _windows(np.stack([a, b, a * a, b * b, a * b]))
        spread = square_a - mean_a**2 + square_b - mean_b**2
        similar = (2 * (both - mean_a * mean_b) + C2) / (spread + C2)
        if scale == len(scales):
            similar = similar * (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        else:
            a, b = _halved(a), _halved(b)
        similar = similar.mean((0, 1))
        product = product * (similar if exponent == 1 else np.maximum(similar, 0) ** exponent)
    return np.mean(product)


def _windows(maps):
    """The Gaussian mean around each place of [S, H, W, 3] whose window lies in the picture: [S, H - 10, W - 10, 3]."""
    maps = correlate1d(maps, WINDOW, axis=1)[:, RADIUS:-RADIUS]
    return correlate1d(maps, WINDOW, axis=2)[:, :, RADIUS:-RADIUS]


def _halved(picture):
    h, w = picture.shape[0] // 2, picture.shape[1] // 2
    return picture[: 2 * h, : 2 * w].reshape(h, 2, w, 2, -1).mean((1, 3))


def _directions(maps):
    """Unit length along the last axis; a zero vector stays zero."""
    return maps / np.maximum(np.linalg.norm(maps, axis=-1, keepdims=True), 1e-10)
