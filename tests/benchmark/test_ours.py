"""Our side of a train step, of a tiny DiT."""

from types import SimpleNamespace

import jax

from t2i_jax.benchmark import experiments, reference
from t2i_jax.benchmark.ours import train
from t2i_jax.benchmark.rows import Row
from t2i_jax.config.files import from_dict
from t2i_jax.core.state import TrainState
from tests.evaluation.flops_by_hand import dit_forward, linear

BATCH, WORDS, TEXT_WIDTH = 8, 12, 128


def test_train_step(tmp_path, monkeypatch):
    """Its FLOPs are those by hand: three times the forward pass, less what needs no gradient.

    The step that the training loop compiles has its own tests; here it only counts its calls.
    """

    def start(prepared, manager, create, place):
        return SimpleNamespace(state=TrainState(0, jax.eval_shape(create).params, *[{}] * 4))

    def count(state, frozen, batch):
        assert batch["image"].shape == (BATCH, 32, 32, 3)
        steps.append(state.step)
        return state._replace(step=state.step + 1), {}

    steps = []
    monkeypatch.setattr(train.start, "begin", start)
    monkeypatch.setattr(train.programs, "compile_step", lambda *_: count)
    config = experiments.dit(BATCH, patch=16, width=16, depth=1, heads=2).to_dict()
    config["data"]["scenes"] = 64  # what other tests have prepared
    row = Row("", lambda: from_dict(config), 1.0, twin="dit")
    side = train.prepare(row, tmp_path, "resident")
    forward, start = dit_forward(BATCH, 4, WORDS, 16, 3, TEXT_WIDTH, 16, 1)
    window = linear(BATCH * WORDS, 5 * TEXT_WIDTH, TEXT_WIDTH)
    assert side.info["flops"] == 3 * (forward + window) - start
    side.step()
    side.step()
    assert steps == [0, 1]  # each step gets the state that the one before returned
    side.product()

    config, arrays = reference.load(tmp_path)
    weights = jax.tree.leaves(arrays["params"])
    assert side.info["parameters"] == sum(x.size for x in weights)
    assert all(x.all() for x in weights)  # no zeros, which would hide a difference
    assert config["model"]["width"] == 16 and arrays["output"].shape == (BATCH, 32, 32, 3)
