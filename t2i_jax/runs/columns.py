"""Captions as columns: token arrays with a row for each example, computed once before training."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from t2i_jax.core.source import Source
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder


def tokenise(
    source: Source, tokenizer, config, variants: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[dict, int]:
    """Tokenise all captions of a source. Returns (columns, number of captions cut to the length).

    config: `config.text`.
    variants: {augmentation: captions}, of data/augmentation.py.
    The columns are {"text": {encoder: {"tokens" [N, L], "mask" [N, L]}}} with what the encoder
    computes of them beforehand. Where there are variants, they also have {"variants":
    {augmentation: {encoder: ...}}}.
    """
    encoder = make_encoder(config)
    encoded = {
        name: tokenizers.encode(tokenizer, said, config.length) for name, said in variants.items()
    }
    plain, cut = tokenizers.encode(tokenizer, source.captions, config.length)
    columns: dict = {"text": {config.encoder: encoder.precompute(plain)}}
    if encoded:
        columns["variants"] = {
            name: {config.encoder: encoder.precompute(text)} for name, (text, _) in encoded.items()
        }
    return columns, cut + sum(more for _, more in encoded.values())
