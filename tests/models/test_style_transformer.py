"""The network of style transfer: the last norm makes statistics that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.models.style_predictor import StylePredictor
from t2i_jax.models.style_transformer import StyleTransformer

NET = StyleTransformer(width=2, blocks=1)


def test_the_style_sets_mean_and_deviation_of_each_colour():
    """And a picture depends on its own style alone."""
    keys = jax.random.split(jax.random.key(0), 3)
    x, style = jax.random.uniform(keys[0], (2, 12, 16, 3)), jax.random.normal(keys[1], (2, 5))
    params = jax.jit(NET.init)(keys[2], x, style)["params"]
    draw = jax.jit(lambda x, style: NET.apply({"params": params}, x, style))
    found = draw(x, style)
    assert found.shape == x.shape
    logits = jnp.log(found) - jnp.log1p(-found)
    scale, shift = (
        style @ params[f"expand_2_{which}"]["kernel"] + params[f"expand_2_{which}"]["bias"]
        for which in ("scale", "shift")
    )
    np.testing.assert_allclose(logits.mean((1, 2)), shift, atol=1e-3)
    np.testing.assert_allclose(logits.std((1, 2)), jnp.abs(scale), rtol=1e-2, atol=1e-3)
    other = draw(x, style.at[1].set(0.0))
    np.testing.assert_allclose(other[0], found[0], atol=1e-6)
    assert np.abs(other[1] - found[1]).max() > 0.01


def test_the_predictor_is_its_convolutions():
    """One stage, against XLA's own grouped convolution."""
    net = StylePredictor(stages=((2, 1, 2, 4),), style=3)
    x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    params = jax.jit(net.init)(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda p: p + 0.1 if p.ndim == 1 else p, params)

    def conv(y, name, stride=1, groups=1):
        kernel, bias = params[name]["kernel"], params.get(f"{name}_bias", params[name].get("bias"))
        shape = ("NHWC", "HWIO", "NHWC")
        return bias + jax.lax.conv_general_dilated(
            y, kernel, (stride, stride), "SAME", None, None, shape, groups
        )

    def expected(x):
        y = jax.nn.relu6(conv(x, "stem", 2))
        for block in range(2):
            wide = jax.nn.relu6(conv(y, f"block_{block}_expand"))
            wide = jax.nn.relu6(conv(wide, f"block_{block}_depthwise", groups=wide.shape[-1]))
            narrow = conv(wide, f"block_{block}_project")
            y = y + narrow if block else narrow  # the first has other channels than its input
        pooled = jax.nn.relu6(conv(y, "head")).mean((1, 2))
        return pooled @ params["out"]["kernel"] + params["out"]["bias"]

    found = jax.jit(net.apply)({"params": params}, x)
    np.testing.assert_allclose(found, jax.jit(expected)(x), atol=1e-5)
    assert np.abs(found).max() > 0.1
