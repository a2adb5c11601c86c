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
from t2i_jax.core.text import TextEncoder
from t2i_jax.text import minilm
from t2i_jax.text.encoder import LENGTH, WIDTH, WINDOW

COMPONENTS = 128  # numbers in the fixed vector of a token


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.text` for static_minilm."""
    del config
    return {"length": LENGTH, "width": WIDTH, "window": WINDOW}


def make(config) -> TextEncoder:
    """Return the table, and MiniLM's trained head behind it.

    Fields used: `length` (tokens, with [CLS] and [SEP]), `width` and `window`.
    """
    head = minilm.Head(config.width, config.get("window", 0), zero_start=True)

    def init(rng, length):
        x, mask = jnp.zeros((1, length, COMPONENTS)), jnp.ones((1, length), bool)
        condition, variables = head.init_with_output(rng, x, mask)
        return variables["params"], condition

    def apply(params, frozen, text, keys=None):
        x = jnp.asarray(frozen["embedding"])[text["tokens"]]
        return head.apply({"params": params}, x, jnp.asarray(text["mask"]), keys)

    return TextEncoder(
        init,
        apply,
        minilm.make_tokenizer,
        make_frozen=lambda: {"embedding": distil(minilm.embed_tokens(), COMPONENTS)},
    )


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
