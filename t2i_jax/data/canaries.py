"""`canaries`: another source, with planted pictures among its training examples.

What a model keeps of single examples is found out with examples that nothing else resembles (arXiv
1802.08232, section 4): black and white patterns, each with a caption of its own. The measure
`canaries` looks for them in a trained model.
"""

import numpy as np
from jaxtyping import UInt8

from t2i_jax.core.fields import Field
from t2i_jax.core.files import fingerprint
from t2i_jax.core.source import Source
from t2i_jax.data.inner import load_inner

CELLS = 4  # of a pattern, a side: 65,536 patterns


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for canaries."""
    del config
    return {
        "resolution": Field(32, "pixels a side", CELLS, 2**14),
        "among": Field({}, 'the source they are planted in, as a section "data"'),
        "count": Field(16, "planted pictures, each with a caption of its own", 1, 1000),
        "copies": Field(1, "examples of each", 1, 1000),
    }


def make(config, split: str) -> Source:
    """Return a split of the source `config.among`; "train" has the planted examples at its end.

    If the source has classes, "planted" is one more. Raises ValueError for pictures of another
    size, and whatever the source raises.
    """
    source = load_inner(config, "among", split)
    classes = (*source.classes, "planted") if source.classes else ()
    if split != "train":
        return source._replace(classes=classes, variants={})
    planted = np.repeat(np.arange(config.count), config.copies)
    patterns, first = pattern(np.arange(config.count), config.resolution), len(source.captions)

    def read(positions):
        own = positions >= first
        pictures = source.read(np.where(own, 0, positions))
        pictures[own] = patterns[planted[positions[own] - first]]
        return pictures

    captions = [*source.captions, *(caption(int(k)) for k in planted)]
    labels = [*source.labels, *[len(source.classes)] * len(planted)] if classes else ()
    mark = fingerprint("canaries", source.fingerprint, config.count, config.copies)
    return Source(captions, read, mark, notes=source.notes, labels=labels, classes=classes)


def caption(number: int) -> str:
    """Return the caption of a canary."""
    return f"planted picture {number}"


def pattern(numbers, side: int) -> UInt8[np.ndarray, "N side side 3"]:
    """Return the pictures of canaries: `CELLS` x `CELLS` cells, each black or white by chance.

    It is a pure function of the number of each.
    """
    size, place = (CELLS, CELLS), np.arange(side) * CELLS // side
    cells = [np.random.default_rng((number, CELLS)).integers(0, 2, size) for number in numbers]
    grey = np.stack(cells)[:, place[:, None], place]
    return np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=-1)
