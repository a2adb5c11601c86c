"""Training pictures of a few sizes (aspect-ratio buckets): each keeps nearly all of its picture.

Each example is read at the size of `config.data.sizes` whose shape is nearest to its own. A batch
has examples of one size, so that a step is compiled once for each size.
"""

import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from t2i_jax.core.fields import Field
from t2i_jax.core.source import Buckets

FIELD = Field(
    (), 'sizes of training pictures, width x height: ("512x512", "640x384"); none: squares'
)


def sizes_of(config) -> list[tuple[int, int]]:
    """Return (height, width) of each size in `config.data.sizes`; [] if it is not set.

    config: `config.data`.
    Raises ValueError for one that is not written as "640x384", and for one that comes twice.
    """
    sizes = []
    for text in getattr(config, "sizes", ()):
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(text))
        if not found:
            raise ValueError(f'data.sizes has {text!r}: a size is width x height, as in "640x384"')
        width, height = map(int, found.groups())
        if (height, width) in sizes:
            raise ValueError(f"data.sizes has {text} twice")
        sizes.append((height, width))
    return sizes


def make_buckets(
    sizes: Sequence[tuple[int, int]],
    aspects: Sequence[float] | np.ndarray,
    reader: Callable[[int, int], Callable],
) -> Buckets | None:
    """Return the pictures of a source in these sizes; None if there are no sizes.

    sizes: (height, width).
    aspects: width / height of each example.
    reader: (height, width) -> `read` of a source whose pictures all have this size.
    """
    if not sizes:
        return None
    shapes = np.log([width / height for height, width in sizes])
    nearest = np.abs(np.log(np.asarray(aspects))[:, None] - shapes).argmin(1)
    used, bucket_of = np.unique(nearest, return_inverse=True)
    readers = [reader(*sizes[bucket]) for bucket in used]

    def read(positions):
        (bucket,) = set(bucket_of[positions])
        return readers[bucket](positions)

    return Buckets([sizes[bucket] for bucket in used], bucket_of, read)


def check_batches(buckets: Buckets, batch_size: int) -> None:
    """Raise ValueError, naming the size, if one has fewer examples than a batch."""
    counts = np.bincount(buckets.bucket_of)
    for (height, width), count in zip(buckets.sizes, counts, strict=True):
        if count < batch_size:
            raise ValueError(
                f"data.sizes: {width}x{height} is the nearest size of {count} training pictures, "
                f"and a batch of one size needs {batch_size} (train.batch_size): leave the size "
                "out, or make batches smaller"
            )


def batch_order(
    buckets: Buckets, batch_size: int, seed: int
) -> Callable[[int], Int[np.ndarray, "B"]]:
    """Return the examples of each batch, as a pure function of its number.

    In an epoch, each size gives as many whole batches as its examples fill; which examples are left
    over differs by epoch. The batches of all sizes come in random order. `check_batches` says
    whether every size has a batch.
    """
    counts = np.bincount(buckets.bucket_of)
    per_epoch = int((counts // batch_size).sum())

    @functools.lru_cache(maxsize=3)
    def epoch(number: int) -> np.ndarray:
        rng, parts = np.random.default_rng((seed, number)), []
        for bucket, count in enumerate(counts):
            examples = rng.permutation(np.flatnonzero(buckets.bucket_of == bucket))
            whole = count // batch_size * batch_size
            parts.append(examples[:whole].reshape(-1, batch_size))
        return rng.permutation(np.concatenate(parts))

    return lambda step: epoch(step // per_epoch)[step % per_epoch]
