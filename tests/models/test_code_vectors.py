"""Vectors of codes: codes that look alike have similar vectors from the start."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.code_vectors import CodeVectors


def test_codes_that_look_alike_have_similar_vectors():
    """Without the learned rows, codes with equal entries have equal vectors.

    The vectors of rows without an entry are the learned rows alone.
    """
    module, codebook = CodeVectors(3, 2, 8), jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    params = module.init(jax.random.key(0), codebook)["params"]
    embed, head = module.apply({"params": {**params, "embed": jnp.zeros((5, 8))}}, codebook)
    assert embed.shape == (5, 8) and head.shape == (8, 3)
    np.testing.assert_array_equal(embed[0], embed[1])
    np.testing.assert_array_equal(head[:, 0], head[:, 1])
    assert jnp.abs(embed[0] - embed[2]).max() > 0.01 and (embed[3:] == 0).all()


def test_without_input_vectors_there_are_no_parameters_for_them():
    codebook = jnp.eye(3)
    params = CodeVectors(3, None, 8).init(jax.random.key(0), codebook)["params"]
    assert params.keys() == {"look", "look_out", "head"}
    embed, head = CodeVectors(3, None, 8).apply({"params": params}, codebook)
    assert embed is None and head.shape == (8, 3)
