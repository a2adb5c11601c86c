"""The contract of text conditioning: what a text encoder is, and what it gives to a network."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class TextCondition(NamedTuple):
    """The encoding of a batch of captions, as networks take it.

    sequence: a vector for each token.
    pooled: a vector for each caption.
    mask: True where there is a token. Padding stands at the end.
    vector: other numbers that condition a network (size, crop, guidance), or None.

    The null condition, of unconditional examples, is the encoding of the empty caption.
    """

    sequence: Float[Array, "B L D"]
    pooled: Float[Array, "B D"]
    mask: Bool[Array, "B L"]
    vector: Float[Array, "B K"] | None = None


class TextEncoder(NamedTuple):
    """A text encoder: plain functions.

    To add one, add a file t2i_jax/text/NAME.py with two functions; `config` is `config.text`:

        make(config) -> TextEncoder
        fields(config) -> {name: Field}      every field of `config` that it uses, besides `encoder`

    In what follows, a text is a dict {"tokens": int32 [B, L], "mask": bool [B, L]}, with whatever
    `precompute` adds to it, each [B, ...].

    init: (rng, length) -> (parameters to train, an example TextCondition of one caption of
        `length` tokens).
    apply: (params, frozen, text, keys=None) -> TextCondition. `frozen` is the tree of
        `make_frozen`. keys [B] are for dropout; without them there is none.
    make_tokenizer: (captions) -> a tokenizer for `text.tokenizer.encode`. `captions` are those of
        the training split.
    package: the package that published weights come from; "" if there are none.
    make_frozen: () -> nested dict of arrays that are used and never trained. If they are published
        weights, a run folder stores only their name and hash.
    pretrained: (params) -> params in which published weights replace the random ones. It is called
        once, at the start of a run, outside jit.
    precompute: (text) -> text with more entries, computed once before training instead of at every
        step. `text` is then that of a whole data set, [N, ...]. Each new entry is an array, or any
        object such that x[indices] is an array of those rows. An encoder that is trained computes
        nothing beforehand and returns `text` itself.
    chunks: the most chunks of `text.length` tokens that a prompt has where a model draws
        (text/prompts.py). An encoder that reads more than one also takes a text of weights,
        "weight" float32 [B, L], which its sequence is multiplied by.
    """

    init: Callable
    apply: Callable
    make_tokenizer: Callable
    package: str = ""
    make_frozen: Callable = dict
    pretrained: Callable = lambda params: params
    precompute: Callable = lambda text: text
    chunks: int = 1
