"""An optax transformation from `config.optim`."""

import difflib

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon

SCHEDULES = ("constant", "cosine", "linear")
OPTIMIZERS = ("adamw", "muon")


def learning_rate(config, steps: int):
    """Step -> learning rate: a linear warm-up over `config.warmup` steps, then `config.schedule` down to zero at `steps`."""
    peak, warmup = config.learning_rate, min(config.warmup, steps)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "cosine": lambda: optax.cosine_decay_schedule(peak, max(steps - warmup, 1)),
        "linear": lambda: optax.linear_schedule(peak, 0.0, max(steps - warmup, 1)),
    }[_known(config.schedule, SCHEDULES, "optim.schedule")]()
    # The first step already moves: step s of the warm-up has (s + 1) / (warmup + 1) of the peak.
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), after], [warmup])


def make(config, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm (`config.clip`, 0 for none), then AdamW or Muon with decoupled weight decay on matrices.

    Muon (kellerjordan.github.io/posts/muon, arXiv 2502.16982 for the scale) takes the kernels, seen as input x output
    matrices; tables of tokens, norms and biases go to AdamW at `config.adam_scale` times the rate.
    """
    rate = learning_rate(config, steps)
    if _known(config.name, OPTIMIZERS, "optim.name") == "adamw":
        transform = optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay, mask=_is_matrix)
    else:
        transform = muon(
            rate,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_learning_rate=lambda step: rate(step) * config.adam_scale,
            muon_weight_dimension_numbers=_muon_dimensions,
            consistent_rms=0.2,  # updates as large as AdamW's, so one learning rate serves both
        )
    return optax.chain(optax.clip_by_global_norm(config.clip), transform) if config.clip else transform


def _known(name: str, names, field: str) -> str:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ValueError(f"{field} = {name!r}: it can be {', '.join(names)}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return name


def _is_matrix(params):
    return jax.tree.map(lambda x: x.ndim >= 2, params)


def _muon_dimensions(params):
    def dimensions(path, x):
        names = [getattr(p, "key", str(p)) for p in path]
        if names[-1] != "kernel" or x.ndim < 2:
            return None
        return MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)

    return jax.tree_util.tree_map_with_path(dimensions, params)
