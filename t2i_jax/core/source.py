"""The contract of a data source: captioned pictures with random access."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

# A grammar of captions: templates, each of (what a word says, the words that it can be).
Templates = tuple[tuple[tuple[str, tuple[str, ...]], ...], ...]


class Buckets(NamedTuple):
    """The pictures of a source at a few sizes, which keep their shapes: for training.

    sizes: (height, width) in pixels.
    bucket_of: int [N], the size of each example: an index in `sizes`, each of which is used.
    read: positions int [B] of examples of one size -> uint8 [B, height, width, 3].
    """

    sizes: Sequence[tuple[int, int]]
    bucket_of: np.ndarray
    read: Callable[[np.ndarray], np.ndarray]


class Source(NamedTuple):
    """A captioned set of pictures. The position of an example is its `index` in every batch.

    A source is a file t2i_jax/data/NAME.py with two functions, where `config` is `config.data`:

        make(config, split) -> Source        prepares what is missing on first use; quick afterwards
        fields(config) -> {name: Field}      every field of `config` that it uses, besides `name`

    and, if it is known, LICENCE: that of the data, in words, for model cards; and TEMPLATES, if its
    captions have a grammar (text/grammar.py).

    captions: one string per example. An empty one makes the example unconditional.
    read: positions int [N] -> uint8 [N, R, R, 3]. Pure: the same positions give the same bytes.
    fingerprint: sha256 (hex) of everything that `captions` and `read` depend on. Checkpoints keep
        it, so that a run does not resume on other data.
    notes: lines to show the user once ("3 pictures skipped: ..."). Empty when all is well.
    labels: the index in `classes` of each example, if the data has classes; else empty.
    classes: the names of the classes.
    variants: {augmentation: captions}, for every augmentation that this data allows. The captions
        are those that are true of the augmented pictures. If an augmentation leaves all captions
        true, its value is `captions` itself. No other augmentation may be used
        (data/augmentation.py).
    buckets: the same pictures in other sizes, if the config asks for them. Training takes these,
        and each of its batches has one size (data/buckets.py).
    second: a second source, of the pictures "image_b" of a batch, of the same size. In training it
        has an order of its own (data/loader.py).
    paired: whether picture i of `second` shows the same as picture i: then a translation can be
        compared with the true one.
    """

    captions: Sequence[str]
    read: Callable[[np.ndarray], np.ndarray]
    fingerprint: str
    notes: Sequence[str] = ()
    labels: Sequence[int] = ()
    classes: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = MappingProxyType({})
    buckets: Buckets | None = None
    second: "Source | None" = None
    paired: bool = False
