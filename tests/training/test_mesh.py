"""Which part of an array each device holds, and which devices are neighbours."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from t2i_jax.core.family import parameter_shapes
from t2i_jax.families.load import load_family
from t2i_jax.training import mesh, parallel

BOTH = {"data": 1, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    ("path", "shape", "ways", "expected"),
    [
        ("net/embed", (128, 512), {"fsdp": 4}, (None, "fsdp")),
        ("net/embed", (510, 128), {"fsdp": 4}, (None, "fsdp")),
        ("net/embed", (127, 511), {"fsdp": 4}, ()),
        ("net/embed", (128, 512), {}, ()),
        ("net/scale", (16,), {"fsdp": 4}, ()),
        ("block_0/mlp_in/kernel", (128, 512), {"tensor": 2}, (None, "tensor")),
        ("block_0/mlp_in/kernel", (128, 512), BOTH, ("fsdp", "tensor")),
        ("block_0/mlp_out/kernel", (512, 128), BOTH, ("tensor", "fsdp")),
        ("block_0/attention/query/bias", (128,), BOTH, ("tensor",)),
        ("block_0/attention/out/bias", (128,), BOTH, ()),
        ("block_0/modulation/kernel", (128, 512), BOTH, (None, ("fsdp", "tensor"))),
        ("net/embed", (128, 512), {"tensor": 2}, (None, "tensor")),
        ("block_0/attention/query/kernel", (32, 15), BOTH, ()),
        ("0/mu/block_0/mlp_in/kernel", (), BOTH, ()),
    ],
)
def test_partition(path, shape, ways, expected):
    found = mesh.partition(tuple(path.split("/")), shape, {**dict.fromkeys(mesh.AXES, 1), **ways})
    assert found == PartitionSpec(*expected)


@pytest.mark.parametrize(("fsdp", "tensor"), [(8, 1), (4, 2), (1, 8)])
def test_a_device_holds_its_share_of_a_dit(smoke, fsdp, tensor):
    """Of the 130M parameters of DiT-B/2: an eighth, and what is too small to be split."""
    size = ("model.patch=2", "model.width=768", "model.depth=12", "model.heads=12")
    config = smoke("shapes_diffusion", *size)
    shapes = parameter_shapes(config, load_family(config))
    whole = sum(x.size for x in jax.tree.leaves(shapes))
    shardings = mesh.state_shardings(shapes, mesh.make_mesh(fsdp, tensor))
    parts = jax.tree.map(lambda x, s: np.prod(s.shard_shape(x.shape)), shapes, shardings)
    held = sum(jax.tree.leaves(parts)) / whole
    assert 1 / 8 <= held < 1 / 8 + 0.01


def test_arrays_are_really_split():
    place = parallel.make(ConfigDict({"mode": "jit", "fsdp": 4, "tensor": 2}))
    state = {"mlp_in": {"kernel": np.zeros((64, 128), np.float32)}}
    x = place.put_state(state)["mlp_in"]["kernel"]
    assert {shard.data.shape for shard in x.addressable_shards} == {(16, 64)}
    assert place.devices == 4 and list(place.local_rows(8)) == list(range(8))
    batch = place.put_batch({"index": np.arange(8)})["index"]
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(batch, np.arange(8))


def test_no_copy_of_the_state_spans_two_slices():
    """Two slices of four chips: fsdp and tensor stay inside a slice."""
    devices = [
        types.SimpleNamespace(
            id=i, slice_index=i // 4, process_index=i // 4, platform="cpu", device_kind="cpu"
        )
        for i in range(8)
    ]
    with pytest.raises(ValueError, match="4 devices of each slice: the product can be 1, 2, 4"):
        mesh.make_mesh(8, 1, devices)
    arranged = mesh.arrange(devices, (4, 2, 1), slices=2)
    for group in arranged.reshape(4, 2):
        assert len({device.slice_index for device in group}) == 1
