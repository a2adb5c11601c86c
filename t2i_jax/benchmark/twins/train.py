"""A twin's train step: loss, gradients, clipping, AdamW, running average."""

import importlib

import torch

from t2i_jax.benchmark import ceiling, reference
from t2i_jax.benchmark.side import Side
from t2i_jax.benchmark.twins.layers import load_weights
from t2i_jax.core.threads import num_cores


def prepare(row, folder, how):
    """Return the side of a twin's train step, after it was found to agree with ours.

    how: "eager" or "compiled".
    """
    torch.set_num_threads(num_cores())
    config, arrays = reference.load(folder)
    twin, batch, difference = make_twin(row.twin, config, arrays)
    step = make_step(twin, config, batch, how == "compiled")
    info = {
        "parameters": sum(p.numel() for p in twin.parameters()),
        "difference": difference,
        "version": f"PyTorch {torch.__version__}",
    }
    return Side(step, make_product(), info)


def make_twin(name, config, arrays):
    """Return (the twin with our weights, the batch, how far its output is from ours).

    name: a file of this folder. config, arrays: of `reference.load`.
    Raises ValueError if parameters or outputs differ.
    """
    module = importlib.import_module(f"t2i_jax.benchmark.twins.{name}")
    twin = module.make(config, as_tensors(arrays["frozen"]), reference.flatten(arrays["params"]))
    params = arrays["params"]
    load_weights(twin, reference.flatten(params.get("model", params)))
    batch = as_tensors(arrays["batch"])
    with torch.no_grad():
        found = twin(batch, **as_tensors(arrays.get("inputs", {})))
    difference = reference.require_agreement(
        found.numpy(), arrays["output"], f"the twin {name} in PyTorch"
    )
    return twin, batch, difference


def as_tensors(tree):
    """Return a nested dict of arrays as one of tensors."""
    if isinstance(tree, dict):
        return {name: as_tensors(value) for name, value in tree.items()}
    return torch.from_numpy(tree)


def make_step(twin, config, batch, compiled):
    """Return () -> None, a whole train step with PyTorch's fastest forms of each part.

    A twin is one player with the function `loss`, or has several `players`, each a module with the
    function PLAYER_loss, that are updated in turn.
    """
    updates = [
        make_update(twin, player, config, batch, compiled)
        for player in getattr(twin, "players", ("",))
    ]

    def step():
        return [update() for update in updates]

    return step


def make_update(twin, player, config, batch, compiled):
    """Return () -> (loss, norm of the gradient), an update of one player; "" for the whole twin."""
    module = getattr(twin, player) if player else twin
    loss = getattr(twin, f"{player}_loss") if player else twin.loss
    optim, limit, params = config["optim"], config["optim"]["clip"], list(module.parameters())
    average = [p.detach().clone() for p in params]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": optim["weight_decay"]},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (optim["b1"], optim["b2"])
    optimizer = torch.optim.AdamW(groups, lr=optim["learning_rate"], betas=betas, fused=True)
    loss = torch.compile(loss) if compiled else loss
    done = 0

    def update():
        nonlocal done
        if player:  # no gradients of the others
            twin.requires_grad_(False)
            module.requires_grad_(True)
        value = loss(batch)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, limit, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(config["ema_decay"], (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - decay)
        done += 1
        return value.item(), norm.item()

    return update


def make_product():
    """Return () -> None, a product of two large matrices."""
    x = torch.ones(ceiling.SIZE, ceiling.SIZE)
    out = torch.empty_like(x)
    return lambda: torch.mm(x, x, out=out)
