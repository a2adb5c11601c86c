"""The benchmark's networks in PyTorch agree with ours, in small sizes.

The benchmark itself checks the same of the sizes that it measures, each time.
"""

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from t2i_jax.benchmark import experiments, reference
from t2i_jax.benchmark.ours import forward
from t2i_jax.benchmark.ours import train as ours
from t2i_jax.benchmark.twins import forward as twin_forward
from t2i_jax.benchmark.twins import train as twins
from t2i_jax.core.family import Context
from t2i_jax.runs.prepare import prepare_run

SMALL = {"width": 16, "depth": 2, "heads": 2}
CONFIGS = {
    "dit": lambda: experiments.dit(8, patch=8, **SMALL),
    "unet": lambda: experiments.unet(
        8, width=8, multipliers=(1, 2), blocks=1, attention=(1,), heads=2
    ),
    "autoregressive": lambda: experiments.codes("autoregressive", 8, codes=64, **SMALL),
    "masked": lambda: experiments.codes("masked", 8, codes=64, **SMALL),
    "dcgan": lambda: experiments.dcgan(8, width=8, levels=2, latent=8),
    "vqgan": lambda: experiments.autoencoder(8, 16, width=8, multipliers=(1, 2), blocks=1),
}


@pytest.fixture(scope="module", params=CONFIGS)
def written(request, tmp_path_factory):
    """(name of the twin, what our side prepared, what it wrote for the twin)."""
    folder = tmp_path_factory.mktemp(request.param)
    prepared = prepare_run(CONFIGS[request.param](), folder / "run")
    ours.write_reference(prepared, ours.first_batch(prepared), folder)
    prepared.lock.close()
    return request.param, prepared, reference.load(folder)


def test_outputs_are_equal(written):
    """And so are the parameters: one that only one side has is refused."""
    name, _, (config, arrays) = written
    twin, _, difference = twins.make_twin(name, config, arrays)
    assert difference < 2e-5 and np.std(arrays["output"]) > 0.1
    sizes = [x.size for x in reference.flatten(arrays["params"]).values()]
    assert sum(p.numel() for p in twin.parameters()) == sum(sizes)


def test_every_weight_counts(written):
    """Another number in any array of the weights, and the outputs are not those of ours."""
    name, _, (config, arrays) = written
    batch = twins.as_tensors(arrays["batch"])
    inputs = twins.as_tensors(arrays.get("inputs", {}))
    twin, _, _ = twins.make_twin(name, config, arrays)
    twin.requires_grad_(True)
    twin(batch, **inputs).square().mean().backward()
    silent = [path for path, p in twin.named_parameters() if not p.grad.abs().sum() > 0]
    assert not silent


@pytest.mark.parametrize("written", ["autoregressive"], indirect=True)
def test_losses_are_equal(written):
    """This loss draws nothing at random but dropped captions; the others draw noise."""
    name, prepared, (config, arrays) = written
    twin, batch, _ = twins.make_twin(name, config, arrays)
    twin.drop = 0.0
    own = ours.first_batch(prepared)
    keys = jax.random.split(jax.random.key(0), len(own["index"]))
    ones = np.ones(len(keys), np.float32)
    ctx = Context({}, prepared.frozen, None, 0, own, keys, False, ones, keys[0])
    loss = jax.jit(lambda params: prepared.family.losses["model"](params, ctx)[0].mean())
    np.testing.assert_allclose(twin.loss(batch).item(), loss(arrays["params"]), rtol=1e-5)


def test_other_weights_are_refused(written):
    name, _, (config, arrays) = written
    other = jax.tree.map(lambda x: 1.001 * x, arrays["params"])
    with pytest.raises(ValueError, match="another output than ours with the same weights"):
        twins.make_twin(name, config, {**arrays, "params": other})
    flat = reference.flatten(arrays["params"])
    flat.popitem()
    with pytest.raises(ValueError, match="our network has no parameter"):
        twins.make_twin(name, config, {**arrays, "params": reference.nest(flat)})


def test_steps_of_a_twin(written):
    """Whole train steps lower the loss on the one batch, of each player but a generator."""
    name, _, (config, arrays) = written
    twin, batch, _ = twins.make_twin(name, config, arrays)
    step = twins.make_step(twin, config, batch, compiled=False)
    losses, norms = np.moveaxis(np.array([step() for _ in range(40)]), -1, 0)
    assert (norms > 0).all() and losses[-10:, 0].mean() < losses[:10, 0].mean()


@pytest.mark.parametrize("part", ["", "mid_block.attentions.0"])
def test_the_unet_of_stable_diffusion(part, tmp_path):
    """Outputs and the number of parameters are equal, and every weight matters."""
    small = dict(channels=(64, 96), blocks=1, depths=(0, 2), middle_depth=2, heads=(2, 3))
    config = experiments.published_unet(8, part, **small, text_width=24)
    _, params = forward.write_reference(config, tmp_path)
    about, arrays = reference.load(tmp_path)
    twin, inputs, difference = twin_forward.make_twin("diffusers_unet", tmp_path)
    assert difference < 2e-5 and np.std(arrays["output"]) > 0.1
    count = sum(x.size for x in jax.tree.leaves(params))
    assert sum(p.numel() for p in twin.parameters()) == count
    with torch.no_grad():
        for name, p in twin.named_parameters():
            p.mul_(1.1)
            (other,) = twin(**inputs, return_dict=False)
            assert np.abs(other.numpy() - arrays["output"]).max() > 1e-4, name
            p.div_(1.1)

    reference.save(tmp_path, about, {**arrays, "output": 1.1 * arrays["output"]})
    with pytest.raises(ValueError, match="another output than ours with the same weights"):
        twin_forward.make_twin("diffusers_unet", tmp_path)
    weights = load_file(tmp_path / reference.WEIGHTS)
    weights.popitem()
    save_file(weights, tmp_path / reference.WEIGHTS)
    with pytest.raises(ValueError, match="diffusers has other parameters"):
        twin_forward.make_twin("diffusers_unet", tmp_path)
