"""Names of Magenta's arrays: each is that of one parameter, and those of the files are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.style_predictor import StylePredictor
from t2i_jax.models.style_transformer import StyleTransformer
from t2i_jax.weights import magenta_style
from t2i_jax.weights.published import read_params, write_arrays

PICTURE = jnp.zeros((1, 8, 8, 3))
NETWORKS = {
    "predictor": (StylePredictor(), (PICTURE,), magenta_style.predictor_names),
    "transformer": (
        StyleTransformer(),
        (PICTURE, jnp.zeros((1, 100))),
        magenta_style.transformer_names,
    ),
}
SHAPES = {  # as in the published files
    "predictor": {
        "MobilenetV2/Conv/weights_dequant": (32, 3, 3, 3),
        "MobilenetV2/expanded_conv/depthwise/depthwise_weights_dequant": (32, 1, 3, 3),
        "MobilenetV2/expanded_conv/project/Conv2D_bias_dequant": (16,),
        "MobilenetV2/expanded_conv_16/expand/weights_dequant": (960, 160, 1, 1),
        "MobilenetV2/expanded_conv_16/depthwise/depthwise_bias_dequant": (960,),
        "MobilenetV2/Conv_1/weights_dequant": (1280, 320, 1, 1),
        "mobilenet_conv/Conv/weights_dequant": (100, 1280, 1, 1),
        "mobilenet_conv/Conv/Conv2D_bias_dequant": (100,),
    },
    "transformer": {
        "transformer/contract/conv1/weights_dequant": (8, 3, 9, 9),
        "transformer/contract/conv3/Conv2D_bias_dequant": (32,),
        "transformer/residual/residual5/conv2/weights_dequant": (32, 32, 3, 3),
        "transformer/expand/conv3/conv/weights_dequant": (3, 8, 9, 9),
        "style_params/transformer/residual/residual1/conv2/StyleNorm/Conv_1/weights_dequant": (
            *(32, 100, 1, 1),
        ),
        "style_params/transformer/expand/conv2/conv/StyleNorm/Conv/Conv2D_bias_dequant": (8,),
    },
}


@pytest.mark.parametrize(("part", "count"), [("predictor", 106), ("transformer", 71)])
def test_each_parameter_has_a_name_and_comes_back(part, count):
    net, inputs, names = NETWORKS[part]
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    numbers = iter(range(10**6))
    params = jax.tree.map(lambda x: np.full(x.shape, next(numbers), np.float32), shapes)
    arrays = write_arrays(params, names)
    assert len(arrays) == count and not any(map(magenta_style.ignored, arrays))
    assert SHAPES[part].items() <= {name: array.shape for name, array in arrays.items()}.items()
    constants = {
        "scale__7": np.ones(2),
        "transformer/residual/residual5/conv1/Conv2D_bias_dequant": np.zeros(32),
        "transformer/expand/conv1/conv/StyleNorm/batchnorm/add/y_dequant": np.zeros(1),
    }
    found = read_params({**arrays, **constants}, shapes, names, "it", magenta_style.ignored)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    with pytest.raises(ValueError, match="1 not used"):
        read_params({**arrays, "x_dequant": ONE}, shapes, names, "it", magenta_style.ignored)


ONE = np.ones(1)
