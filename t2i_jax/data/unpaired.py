"""`unpaired`: two sets of pictures, for a model that translates between them.

Each set is a source of its own. Pictures of the first are "image" in a batch, those of the second
"image_b". Where both show the same things, `match` says how to find the pairs: then one half of
them gives the first set of training and the other half the second, so that no training picture has
its partner there. The other splits keep whole pairs, by which a translation can be measured.
"""

import numpy as np

from t2i_jax.core.fields import Field
from t2i_jax.core.files import fingerprint
from t2i_jax.core.source import Source
from t2i_jax.data.inner import load_inner

MATCHES = {
    "none": lambda source: [],
    "position": lambda source: range(len(source.captions)),
    "name": lambda source: [caption.rpartition(", ")[0] for caption in source.captions],
}


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for unpaired."""
    del config
    return {
        "resolution": Field(32, "pixels a side, of both sets", 1, 2**14),
        "first": Field({}, 'the first set, as a section "data"'),
        "second": Field({}, 'the second set, as a section "data"'),
        "match": Field(
            "none",
            "what pairs have in common: nothing is paired, their position, or their captions up to "
            "the last comma",
            choices=tuple(MATCHES),
        ),
    }


def make(config, split: str) -> Source:
    """Return the first set of a split, with the second as its `second`. Captions are the first's.

    Raises ValueError for sets of different sizes, for one without pictures, for fewer than two
    pairs, and whatever the two sources raise.
    """
    first, second = (load_inner(config, name, split) for name in ("first", "second"))
    notes = [*first.notes, *second.notes]
    match = getattr(config, "match", "none")
    if match != "none":
        pairs = _pairs(MATCHES[match](first), MATCHES[match](second))
        if len(pairs) < 2:
            raise ValueError(
                f"data.match is {match!r}, and {split} has {len(pairs)} pairs of pictures: at "
                "least 2 are needed"
            )
        halves = (pairs[::2], pairs[1::2]) if split == "train" else (pairs, pairs)
        first, second = _only(first, halves[0][:, 0]), _only(second, halves[1][:, 1])
    mark = fingerprint("unpaired", match, split, first.fingerprint, second.fingerprint)
    return Source(
        first.captions,
        first.read,
        mark,
        notes=notes,
        second=second,
        paired=match != "none" and split != "train",
    )


def _pairs(first, second) -> np.ndarray:
    """Return int64 [N, 2]: the positions of what is in both lists, in the order of the first.

    What a list has several times counts once, at its last position there.
    """
    places = {key: place for place, key in enumerate(second)}
    found = {key: (i, places[key]) for i, key in enumerate(first) if key in places}
    return np.array(list(found.values()), np.int64).reshape(-1, 2)


def _only(source: Source, index: np.ndarray) -> Source:
    """Return a source of the examples at `index`."""
    captions = [str(source.captions[i]) for i in index]
    mark = fingerprint(source.fingerprint, index.tobytes())
    return Source(captions, lambda positions: source.read(index[positions]), mark)
