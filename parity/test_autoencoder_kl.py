"""AutoencoderKL against diffusers' with the same random weights."""

import json

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as Theirs

from parity.agreement import arrays_of, check_close, check_names, check_written, random_model
from t2i_jax.models.autoencoder_kl import VARIANTS, AutoencoderKL, param_shapes
from t2i_jax.models.quantize import kl
from t2i_jax.models.tiles import in_tiles
from t2i_jax.weights import autoencoder_kl as weights

BLOCKS = dict(down_block_types=["DownEncoderBlock2D"], up_block_types=["UpDecoderBlock2D"])
TINY = dict(block_out_channels=[32, 64, 96], layers_per_block=1, scaling_factor=0.5)
NO_PROJECTION = dict(latent_channels=16, use_quant_conv=False, use_post_quant_conv=False)
CONFIGS = {
    "4 channels": dict(latent_channels=4),
    "16 channels": dict(shift_factor=0.1, **NO_PROJECTION),
    "no attention": dict(mid_block_add_attention=False, block_out_channels=[32, 32, 64]),
}


def config_of(name):
    config = TINY | CONFIGS[name]
    levels = len(config["block_out_channels"])
    return {kind: blocks * levels for kind, blocks in BLOCKS.items()} | config


@pytest.mark.parametrize("name", CONFIGS)
def test_encode_and_decode(name):
    model = random_model(Theirs, **config_of(name))
    net = AutoencoderKL(**weights.fields(json.loads(model.to_json_string())))
    params = weights.read(arrays_of(model), net, "the model")
    r = np.random.default_rng(0)
    x = r.uniform(-1, 1, (2, 32, 24, 3)).astype(np.float32)
    z = r.normal(size=(2, 8, 6, net.latent)).astype(np.float32)
    with torch.no_grad():
        posterior = model.encode(torch.tensor(x).permute(0, 3, 1, 2)).latent_dist
        pictures = model.decode(torch.tensor(z).permute(0, 3, 1, 2)).sample

    def run(method, a):
        return jax.jit(lambda v, a: net.apply(v, a, method=method))({"params": params}, a)

    mean, logvar = run(AutoencoderKL.encode, x)
    check_close(mean, posterior.mean.permute(0, 2, 3, 1), "the mean")
    check_close(logvar, posterior.logvar.permute(0, 2, 3, 1), "the log-variance")
    moments = np.concatenate([mean, logvar], axis=-1)
    found = kl(net.latent).apply({}, {}, moments, jax.random.split(jax.random.key(0), 2))
    nats = posterior.kl().numpy() / z[0].size  # theirs is a sum
    np.testing.assert_allclose(found.loss, nats, rtol=1e-4)
    check_close(run(AutoencoderKL.decode, z), pictures.permute(0, 2, 3, 1), "the pictures")
    check_written(params, weights.published(net), arrays_of(model))


@pytest.mark.parametrize("name", CONFIGS)
def test_diffusers_builds_the_same_network_from_our_config(name):
    model = Theirs(**config_of(name))
    net = AutoencoderKL(**weights.fields(dict(model.config)))
    again = Theirs.from_config(weights.config_json(net))
    again.load_state_dict(model.state_dict())
    assert weights.fields(dict(again.config)) == weights.fields(dict(model.config))


def test_older_names_of_attention():
    model = random_model(Theirs, **config_of("4 channels"))
    net = AutoencoderKL(**weights.fields(dict(model.config)))
    old = {new: name for name, new in weights.OLD_ATTENTION.items()}
    arrays = {}
    for name, array in arrays_of(model).items():
        for new in old:
            name = name.replace(f".{new}.", f".{old[new]}.")
        arrays[name] = array
    assert len(set(arrays) - set(arrays_of(model))) == 16
    check_written(weights.read(arrays, net, "it"), weights.published(net), arrays_of(model))


PUBLISHED = {
    "SD": dict(latent_channels=4, scaling_factor=0.18215),
    "SDXL": dict(latent_channels=4, scaling_factor=0.13025),
    "SD3": dict(scaling_factor=1.5305, shift_factor=0.0609, **NO_PROJECTION),
    "FLUX": dict(scaling_factor=0.3611, shift_factor=0.1159, **NO_PROJECTION),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_published_array_has_a_place(name):
    blocks = {kind: names * 4 for kind, names in BLOCKS.items()}
    with torch.device("meta"):
        model = Theirs(
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            **blocks,
            **PUBLISHED[name],
        )
    net = AutoencoderKL(**VARIANTS[name])
    assert net == AutoencoderKL(**weights.fields(dict(model.config)))
    count = check_names(param_shapes(net), weights.published(net), model)
    assert count == (83_653_863 if net.latent == 4 else 83_819_683)


def test_tiles():
    """As diffusers' tiles, but for two things that are done there in another way.

    Where four tiles meet, it blends one of them twice. And its last tile is not a whole one: it
    ends at the border, and the tile before it is blended into it.
    """
    model = random_model(Theirs, **config_of("4 channels"))
    net = AutoencoderKL(**weights.fields(json.loads(model.to_json_string())))
    variables = {"params": weights.read(arrays_of(model), net, "the model")}
    tile, overlap, cell, side = 12, 3, 4, 30  # tiles from 0, 9 and 18 on
    model.enable_tiling()
    model.tile_latent_min_size, model.tile_sample_min_size = tile, tile * cell
    r = np.random.default_rng(0)
    z = r.normal(size=(2, side, side, 4)).astype(np.float32)
    x = r.uniform(-1, 1, (2, side * cell, side * cell, 3)).astype(np.float32)
    with torch.no_grad():
        pictures = model.decode(torch.tensor(z).permute(0, 3, 1, 2)).sample
        mean = model.encode(torch.tensor(x).permute(0, 3, 1, 2)).latent_dist.mean
    shared = np.array([9 <= i < 12 or 18 <= i < 21 for i in range(27)])
    alone = ~(shared[:, None] & shared)

    def check(found, expected, scale, what):
        kept, found = expected.permute(0, 2, 3, 1)[:, : 27 * scale, : 27 * scale], np.asarray(found)
        where = alone.repeat(scale, 0).repeat(scale, 1)
        check_close(found[:, : 27 * scale, : 27 * scale][:, where], kept[:, where], what)

    def decode(z):
        return net.apply(variables, z, method=AutoencoderKL.decode)

    def encode(x):
        return net.apply(variables, x, method=AutoencoderKL.encode)[0]

    found = jax.jit(lambda z: in_tiles(decode, z, tile, overlap, outer=cell))(z)
    check(found, pictures, cell, "decoded tiles")
    found = jax.jit(lambda x: in_tiles(encode, x, tile, overlap, inner=cell))(x)
    check(found, mean, 1, "encoded tiles")
