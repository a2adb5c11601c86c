"""CLIP: exact sizes, and what may and may not influence an output.

Comparisons with the original are in parity/.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.clip import ACTIVATIONS, CLIP, VARIANTS, TextTower

TEXT = dict(vocab_size=20, length=8, end=19, width=16, depth=2, heads=2)
IMAGE = dict(side=8, patch=4, width=24, depth=1, heads=3, mlp=40)
TOKENS = np.array([[18, 3, 4, 5, 19, 19, 19, 19], [18, 7, 19, 1, 2, 3, 4, 5]], np.int32)


def _random(net, *inputs):
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    r = np.random.default_rng(0)
    return {
        "params": jax.tree.map(
            lambda a: jnp.asarray(r.normal(size=a.shape) * 0.5, jnp.float32), shapes
        )
    }


@pytest.mark.parametrize(
    ("variant", "count"),
    [  # as the PyTorch originals count them, their logit scale included
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14-336", 427_944_193),
    ],
)
def test_parameter_count(variant, count):
    side = VARIANTS[variant]["image"]["side"]
    inputs = (
        jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 77), jnp.int32),
    )
    params = jax.eval_shape(CLIP(**VARIANTS[variant]).init, jax.random.key(0), *inputs)["params"]
    assert sum(int(np.prod(a.shape)) for a in jax.tree.leaves(params)) == count


def test_all_variants_are_counted():
    counted = next(
        mark for mark in test_parameter_count.pytestmark if mark.name == "parametrize"
    ).args[1]
    assert {name for name, _ in counted} == set(VARIANTS)


def test_a_token_depends_on_earlier_tokens_only():
    tower = TextTower(**TEXT)
    params, apply = _random(tower, TOKENS), jax.jit(tower.apply)
    hidden, pooled = apply(params, TOKENS)
    assert len(hidden) == TEXT["depth"] + 1 and hidden[-1].shape == (2, 8, 16)
    changed = TOKENS.copy()
    changed[:, 5] = 6  # after the end in both captions
    other_hidden, other_pooled = apply(params, changed)
    np.testing.assert_array_equal(other_pooled, pooled)
    for before, after in zip(hidden, other_hidden, strict=True):
        np.testing.assert_array_equal(after[:, :5], before[:, :5])
        assert np.abs(after[:, 5] - before[:, 5]).max() > 1e-3
    # Later tokens depend on it.
    assert np.abs(other_hidden[-1][:, 7] - hidden[-1][:, 7]).max() > 1e-3
    np.testing.assert_array_equal(
        pooled, hidden[-1][jnp.arange(2), jnp.array([4, 2])]
    )  # at the first end token
    short, _ = apply(params, TOKENS[:, :5])  # a shorter row is the same caption
    np.testing.assert_allclose(short[-1], hidden[-1][:, :5], atol=1e-5)


def test_only_the_last_hidden_states_are_normalised():
    tower = TextTower(**TEXT)
    params = _random(tower, TOKENS)
    params["params"]["norm_out"] = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    hidden, _ = jax.jit(tower.apply)(params, TOKENS)
    np.testing.assert_allclose(hidden[-1].mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(hidden[-1].std(-1), 1, atol=1e-3)
    assert np.abs(np.asarray(hidden[-2]).std(-1) - 1).max() > 0.1
    embedded = params["params"]["embed"]["embedding"][TOKENS] + params["params"]["positions"]
    np.testing.assert_allclose(hidden[0], embedded, atol=1e-6)


def test_vectors_and_scale():
    net = CLIP(embed=6, image=IMAGE, text=TEXT)
    pictures = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    params, apply = _random(net, pictures, TOKENS), jax.jit(net.apply)
    image, text, scale = apply(params, pictures, TOKENS)
    for vectors in (image, text):
        np.testing.assert_allclose(jnp.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
        assert vectors.shape == (2, 6) and vectors.dtype == jnp.float32
    np.testing.assert_allclose(scale, np.exp(params["params"]["log_scale"]), rtol=1e-6)
    moved = pictures.copy()
    moved[1, 7, 7] += 1  # a far corner reaches the class token, on its own picture
    other = apply(params, moved, TOKENS)[0]
    np.testing.assert_array_equal(other[0], image[0])
    assert np.abs(other[1] - image[1]).max() > 1e-4
    # The place of a patch has an influence.
    swapped = np.concatenate([pictures[:, 4:], pictures[:, :4]], axis=1)
    assert np.abs(apply(params, swapped, TOKENS)[0] - image).max() > 1e-3
    started = jax.jit(lambda key: net.init(key, pictures, TOKENS)["params"]["log_scale"])(
        jax.random.key(0)
    )
    np.testing.assert_allclose(np.exp(started), 1 / 0.07, rtol=1e-5)


def test_activations():
    np.testing.assert_allclose(
        ACTIVATIONS["quick_gelu"](jnp.array([0.0, 1.0, -2.0])), [0, 0.845796, -0.064342], atol=1e-5
    )
    np.testing.assert_allclose(
        ACTIVATIONS["gelu"](jnp.array([0.0, 1.0, -2.0])), [0, 0.841345, -0.045500], atol=1e-5
    )


def test_invalid_input_raises_errors():
    net = CLIP(embed=6, image=IMAGE, text=TEXT)

    def shapes(pictures, tokens):
        jax.eval_shape(net.init, jax.random.key(0), jnp.zeros(pictures), jnp.zeros(tokens, int))

    with pytest.raises(ValueError, match=r"\(8, 12, 3\) do not fit: this tower takes \(8, 8, 3\)"):
        shapes((1, 8, 12, 3), (1, 8))
    with pytest.raises(ValueError, match="9 tokens a caption are more than the 8"):
        shapes((1, 8, 8, 3), (1, 9))
