"""The .msgpack files of diffusers' former Flax models: names, layout, damage."""

import re

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util

from t2i_jax.models.autoencoder_kl import AutoencoderKL, param_shapes
from t2i_jax.weights import arrays, autoencoder_kl
from t2i_jax.weights.published import write_arrays

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}


def flax_tree(named):
    """Return arrays by PyTorch names as the tree of FlaxAutoencoderKL."""
    tree = {}
    for name, array in named.items():
        *modules, leaf = re.sub(r"\.(\d+)\.", r"_\1.", name).split(".")
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        tree[*(OLD_NAMES.get(module, module) for module in modules), leaf] = array
    return tree


@pytest.fixture(scope="module")
def net():
    return AutoencoderKL(width=32, multipliers=(1, 2), blocks=1, project=True)


@pytest.fixture(scope="module")
def params(net):
    r = np.random.default_rng(0)
    return jax.tree.map(lambda x: r.normal(size=x.shape).astype(np.float32), param_shapes(net))


def test_an_autoencoder_is_read_as_it_was_written(net, params, tmp_path):
    tree = flax_tree(write_arrays(params, autoencoder_kl.published(net)))
    # As in the published file.
    assert tree["encoder", "down_blocks_0", "resnets_0", "norm1", "scale"].shape == (32,)
    assert tree["decoder", "up_blocks_0", "upsamplers_0", "conv", "kernel"].shape == (3, 3, 64, 64)
    assert tree["decoder", "mid_block", "attentions_0", "proj_attn", "kernel"].shape == (64, 64)
    assert tree["quant_conv", "kernel"].shape == (1, 1, 8, 8)
    file = tmp_path / "diffusion_flax_model.msgpack"
    file.write_bytes(serialization.msgpack_serialize(traverse_util.unflatten_dict(tree)))
    found = autoencoder_kl.read(arrays.read(file), net, "the file")
    jax.tree.map(np.testing.assert_array_equal, found, params)


@pytest.mark.parametrize("damage", ["cut", "other", "no tree"])
def test_a_damaged_file_is_named(damage, tmp_path):
    file = tmp_path / "model.msgpack"
    content = serialization.msgpack_serialize({"norm": {"scale": np.ones(9)}})
    changed = {
        "cut": content[:-5],
        "other": b"<html>not found</html>",
        "no tree": serialization.msgpack_serialize(np.ones(3)),
    }
    file.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=r"model.msgpack is damaged, or no tree of arrays"):
        arrays.read(file)
