"""The probabilities of codes, from the logits of one part or of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.code_head import CodeHead, probabilities

RNG = np.random.default_rng(0)
CODEBOOK = RNG.normal(size=(12, 5)).astype(np.float32)


@pytest.mark.parametrize("parts", [(), (3, 4)], ids=["one part", "two parts"])
def test_probabilities_are_those_that_are_trained(parts):
    """Over all codes they add up to one, and that of the true code is what the loss sees."""
    head = CodeHead(12, 8, parts)
    x = jnp.asarray(RNG.normal(size=(2, 6, 8)), jnp.float32)
    codes = RNG.integers(0, 12, (2, 6))
    params = head.init(jax.random.key(0), x, CODEBOOK, codes)
    p = probabilities(head.apply(params, x, CODEBOOK, method="every"))
    assert p.shape == (2, 6, 12)
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)
    split = (codes // 4, codes % 4) if parts else (codes,)
    true = [
        np.take_along_axis(np.asarray(jax.nn.softmax(logits)), part[..., None], -1)[..., 0]
        for logits, part in zip(head.apply(params, x, CODEBOOK, codes), split, strict=True)
    ]
    found = np.take_along_axis(np.asarray(p), codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(found, np.prod(true, axis=0), rtol=1e-4)
