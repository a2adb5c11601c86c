"""A fixed vector for each token of MiniLM's vocabulary, distilled from MiniLM: no network is run.

Words of the same meaning are near each other, as in MiniLM, and words that no training caption has
still have a vector. The table lies in the run's folder (16 MB; 4 MB in 8 bits): MiniLM's package
(84 MB) is needed to start a run, and neither to draw with it nor to start another run from it.

As in Model2Vec (github.com/MinishLab/model2vec), each token is embedded alone, and the principal
components of all embeddings are kept. A token has the same vector in every caption, so that the
order of words says nothing, beyond `window`. Less weight for frequent tokens, which Model2Vec
gives, did not help (docs/recipes.md).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from t2i_jax.core.fields import Field
from t2i_jax.core.text import TextCondition, TextEncoder
from t2i_jax.text import minilm
from t2i_jax.text.encoder import LENGTH, masked_mean

COMPONENTS = 128  # numbers in the fixed vector of a token


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for static_minilm."""
    del config
    return {"length": LENGTH}


def make(config) -> TextEncoder:
    """Return the table as a text encoder, which has nothing to train.

    Field used: `length` (tokens, with [CLS] and [SEP]). `pooled` is the mean of a caption's
    vectors, made as long as a vector of unit variance, so that products of two are cosines but for
    a factor; that of the empty caption is 0.
    """
    del config

    def apply(params, frozen, text, keys=None):
        x, mask = jnp.asarray(frozen["embedding"])[text["tokens"]], jnp.asarray(text["mask"])
        mean = masked_mean(x, mask)
        length = jnp.linalg.norm(mean, axis=-1, keepdims=True)
        pooled = mean * COMPONENTS**0.5 / jnp.maximum(length, 1e-6)
        return TextCondition(x, pooled, mask)

    def init(rng, length):
        frozen = {"embedding": jnp.zeros((1, COMPONENTS))}
        text = {"tokens": jnp.zeros((1, length), jnp.int32), "mask": jnp.ones((1, length), bool)}
        return {}, apply({}, frozen, text)

    return TextEncoder(init, apply, minilm.make_tokenizer, make_frozen=_make_frozen)


def _make_frozen() -> dict[str, np.ndarray]:
    """Return {"embedding": the table}; the tokens around a caption have vectors of zeros."""
    table = distil(minilm.embed_tokens(), COMPONENTS)
    table[minilm.make_tokenizer().encode("").ids] = 0.0
    return {"embedding": table}


def distil(
    embeddings: Float[np.ndarray, "V D"], components: int
) -> Float[np.ndarray, "V components"]:
    """Return the table of tokens: the first principal components of `embeddings`.

    All numbers are divided by one, so that the whole table has a standard deviation of 1.
    """
    centred = embeddings - embeddings.mean(0)
    _, vectors = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    table = centred @ vectors[:, ::-1][:, :components]
    return (table / table.std()).astype(np.float32)
