"""One call of a network, without gradients, after it was found to agree with ours."""

import importlib

import torch

from t2i_jax.benchmark import reference
from t2i_jax.benchmark.side import Side
from t2i_jax.benchmark.twins.train import as_tensors, make_product
from t2i_jax.core.threads import num_cores


def prepare(row, folder, how):
    """Return the side of one call of a twin. how: "eager" or "compiled"."""
    torch.set_num_threads(num_cores())
    net, inputs, difference = make_twin(row.twin, folder)
    call = torch.compile(net) if how == "compiled" else net

    def step():
        with torch.no_grad():
            call(**inputs, return_dict=False)

    info = {
        "parameters": sum(p.numel() for p in net.parameters()),
        "difference": difference,
        "version": f"PyTorch {torch.__version__}",
    }
    return Side(step, make_product(), info)


def make_twin(name, folder):
    """Return (the twin with our weights, its inputs, how far its output is from ours).

    Convolutions have channels-last memory.
    name: a file of this folder. folder: what ours/forward.py wrote.
    Raises ValueError if parameters or outputs differ.
    """
    module = importlib.import_module(f"t2i_jax.benchmark.twins.{name}")
    config, arrays = reference.load(folder)
    net = module.make(config, folder / reference.WEIGHTS).to(memory_format=torch.channels_last)
    inputs = {
        name: x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        for name, x in as_tensors(arrays["inputs"]).items()
    }
    with torch.no_grad():
        (found,) = net(**inputs, return_dict=False)
    what = f"the twin {name} in PyTorch"
    return net, inputs, reference.require_agreement(found.numpy(), arrays["output"], what)
