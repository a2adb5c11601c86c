"""Published names: every tensor gets to its place, in the right orientation; none is left over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.bert import Bert
from t2i_jax.weights.bert import from_published

TINY = Bert(vocab_size=11, width=4, depth=2, heads=2, positions=7)


def published(net, seed=0):
    """Random tensors under the names and shapes of a published `BertModel`."""
    w, rng = net.width, np.random.default_rng(seed)
    shapes = {
        "embeddings.word_embeddings.weight": (net.vocab_size, w),
        "embeddings.position_embeddings.weight": (net.positions, w),
        "embeddings.token_type_embeddings.weight": (2, w),
        "embeddings.LayerNorm.weight": (w,),
        "embeddings.LayerNorm.bias": (w,),
        "pooler.dense.weight": (w, w),
        "pooler.dense.bias": (w,),
    }
    linear = {
        "attention.self.query": (w, w),
        "attention.self.key": (w, w),
        "attention.self.value": (w, w),
    }
    linear |= {
        "attention.output.dense": (w, w),
        "intermediate.dense": (4 * w, w),
        "output.dense": (w, 4 * w),
    }
    for i in range(net.depth):
        for name, shape in linear.items():
            shapes |= {
                f"encoder.layer.{i}.{name}.weight": shape,
                f"encoder.layer.{i}.{name}.bias": shape[:1],
            }
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {
                f"encoder.layer.{i}.{name}.weight": (w,),
                f"encoder.layer.{i}.{name}.bias": (w,),
            }
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return {**tensors, "embeddings.position_ids": np.arange(net.positions)[None]}


def test_every_tensor_gets_to_its_place():
    tensors = published(TINY)
    params = from_published(tensors, 2)
    tokens, mask = jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool)
    wanted = jax.eval_shape(TINY.init, jax.random.key(0), tokens, mask)["params"]
    assert jax.tree.map(lambda x: (x.shape, x.dtype), wanted) == jax.tree.map(
        lambda x: (x.shape, x.dtype), params
    )
    np.testing.assert_array_equal(
        params["layer_1"]["mlp_in"]["kernel"],
        tensors["encoder.layer.1.intermediate.dense.weight"].T,
    )
    np.testing.assert_array_equal(
        params["layer_0"]["attention"]["key"]["kernel"],
        tensors["encoder.layer.0.attention.self.key.weight"].T,
    )
    used = {
        name for name in tensors if not name.startswith("pooler") and "position_ids" not in name
    }
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(tensors[name].size for name in used)


def test_missing_and_unknown_tensors_are_named():
    tensors = published(TINY)
    with pytest.raises(
        ValueError,
        match=r"of 3 layers: encoder\.layer\.2\.attention\.self\.query\.weight is missing",
    ):
        from_published(tensors, 3)
    with pytest.raises(ValueError, match=r"of 1 layers: encoder\.layer\.1\..* is unknown"):
        from_published(tensors, 1)
