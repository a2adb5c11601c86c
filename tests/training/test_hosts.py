"""Two processes with two devices each train what one device trains, and agree on what happens."""

import contextlib
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils

from t2i_jax import cli
from t2i_jax.core import hosts
from t2i_jax.runs import checkpoint
from t2i_jax.training import parallel
from tests.conftest import ROOT, flags_for, free_port, training_on_one_device
from tests.training.placed_state import save_or_restore

TRAIN = (
    "train",
    f"--config={ROOT}/configs/shapes.py:smoke",
    "--config.train.steps=10",
    "--config.train.log_every=2",
    "--config.train.save_every=5",
    "--config.train.eval_every=5",
    "--config.model.dropout=0.1",
    "--config.model.depth=1",
    "--config.evaluate.num=4",
    "--config.train.reader=threads",  # each process starts faster without TensorFlow
)
# Each process prints what it finds as a line of JSON.
AGREE = """
import json, sys
from t2i_jax.core import hosts
hosts.start(sys.argv[1], 2, int(sys.argv[2]))
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from t2i_jax.training.parallel import put_array

me, said = jax.process_index(), {}
said["first"] = hosts.is_first()
said["any"] = [hosts.any_of(False), hosts.any_of(me == 1)]
order = []
said["in_turn"] = hosts.first_then_others(lambda: order.append(me) or f"by {me}")
hosts.refuse_differences({"the config": "same"})
try:
    hosts.refuse_differences({"the data": "same", "the config": str(me)})
except ValueError as error:
    said["refused"] = str(error)
def fail():
    raise ValueError("no such folder")
try:
    hosts.first_then_others(fail)
except (ValueError, RuntimeError) as error:
    said["failed"] = f"{type(error).__name__}: {error}"
split = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))
x = put_array(np.arange(8), split)
said["parts"] = sorted(int(part.data[0]) for part in x.addressable_shards)
said["whole"] = np.asarray(hosts.local_copy({"x": x})["x"]).tolist()
# A step of private training without an example is noise alone, once for all devices.
import optax
from ml_collections import ConfigDict
from t2i_jax.core import state
from t2i_jax.core.family import Family
from t2i_jax.training import parallel, privacy, step
place = parallel.make(ConfigDict({"mode": "jit", "fsdp": 1, "tensor": 1}))
family = Family(
    init=lambda rng, batch: ({"model": {"w": np.zeros(20_000, "f4")}}, {}),
    losses={"model": lambda p, ctx: ((ctx.batch["x"] @ p["model"]["w"]) ** 2, (ctx.extra, {}))},
    abilities={},
    settings={},
)
sgd = {"model": optax.sgd(1.0)}
private = privacy.Privacy(0.5, 2.0, 8.0, 1e-6, 4, 0.1)
more = {**privacy.private_transforms(private, 8), "axis_name": None}
update = place.compile(step.make_step(family, sgd, ema_decay=0.9, accumulate=1, **more))
batch = {"x": np.zeros((8, 20_000), "f4"), "included": np.zeros(8, "f4")}
own = {key: value[place.local_rows(8)] for key, value in batch.items()}
create = lambda: state.create(family, sgd, batch, 0)
parts = jax.tree.map(lambda x: x.sharding, place.layout(jax.eval_shape(create)))
begun = jax.jit(create, out_shardings=parts)()
begun = begun._replace(rng=privacy.secret_key(begun.rng))
noise = np.asarray(place.take(update(begun, {}, place.put_batch(own))[0]).params["model"]["w"])
said["noise"] = [float(noise.std()), noise.tobytes().hex()[:64]]
hosts.wait("the end")
print("SAID", json.dumps(said))
"""
# Each of two processes prints what it restored.
PLACED = """
import json, sys
from t2i_jax.core import hosts
address, me, workdir, fsdp = sys.argv[1:]
hosts.start(address, 2, int(me))
from tests.training.placed_state import save_or_restore

print("SAID", json.dumps(save_or_restore(workdir, int(fsdp))))
"""


def told(outputs) -> list[dict]:
    """Return what each process said. outputs: as `processes` returns them."""
    for code, said in outputs:
        assert code == 0, said
    return [json.loads(said.split("SAID ")[1].splitlines()[0]) for _, said in outputs]


def processes(commands, devices: int) -> list[tuple[int, str]]:
    """Run commands side by side. Returns (exit code, output) of each."""
    running = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "XLA_FLAGS": flags_for(devices)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command in commands
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    return [(process.returncode, out) for process, out in zip(running, outputs, strict=True)]


def train(workdir, *more, others=()):
    """Train by two processes with two devices each. others: arguments of the second alone."""
    group = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    common = ["main.py", *TRAIN, f"--workdir={workdir}", *group, *more]
    return processes([[*common, "--process_id=0"], [*common, *others, "--process_id=1"]], 2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run folder of one process, this one, on one device."""
    workdir = tmp_path_factory.mktemp("hosts") / "alone"
    with training_on_one_device():
        cli.main([*TRAIN, f"--workdir={workdir}"])
    return workdir


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def names(workdir):
    """Return the files of a run, without those that each process or each run names itself."""
    ours = (path.relative_to(workdir) for path in workdir.rglob("*") if path.is_file())
    return sorted(str(p) for p in ours if p.parts[0] not in ("checkpoints", "tensorboard"))


def test_two_processes_train_what_one_trains(alone, tmp_path):
    """The losses are equal, and the files; the state is split over both, and found by one."""
    both = tmp_path / "both"
    mesh = ("--config.parallel.fsdp=2", "--config.parallel.tensor=2")
    for code, said in train(both, *mesh):
        assert code == 0, said
    assert names(both) == names(alone)
    for name in ("run.json", "tokenizer.json"):
        ours, theirs = (json.loads((w / name).read_text()) for w in (alone, both))
        if name == "run.json":
            assert theirs["config"].pop("parallel") != ours["config"].pop("parallel")
        assert ours == theirs
    assert len(lines(alone)) == 7
    for ours, theirs in zip(lines(alone), lines(both), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(list(theirs.values()), list(ours.values()), rtol=1e-5)
    ours, theirs = (checkpoint.restore_ema(w)[0]["params"] for w in (alone, both))
    largest = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), ours, theirs)
    assert max(map(float, jax.tree.leaves(largest))) < 1e-3  # Adam magnifies rounding at first


def test_a_checkpoint_of_8_devices_goes_on_with_1_and_with_2_processes_of_2(tmp_path):
    """The state is the same, bit for bit, and so are the examples of the batches that follow."""
    workdir, address = str(tmp_path / "run"), f"127.0.0.1:{free_port()}"
    saved = save_or_restore(workdir, 4)
    one = save_or_restore(workdir, 1, jax.devices()[:1])
    pair = told(processes([["-c", PLACED, address, str(i), workdir, "2"] for i in range(2)], 2))
    assert saved["begun"] == 0 and {found["begun"] for found in (one, *pair)} == {3}
    assert saved["split"] and not one["split"] and all(found["split"] for found in pair)
    assert {found["state"] for found in (one, *pair)} == {saved["state"]}
    assert one["index"] == saved["index"] and len(one["index"]) == 2
    assert one["index"][0] != one["index"][1]
    assert sorted(pair[0]["rows"] + pair[1]["rows"]) == one["rows"] == list(range(8))
    for found in pair:
        assert found["index"] == [[batch[i] for i in found["rows"]] for batch in one["index"]]


def test_a_lost_connection_is_told_from_other_errors(monkeypatch, capsys):
    """The others are asked who is there, and the process ends."""
    codes, live = [], contextlib.nullcontext(jax.devices()[:4])
    ids = {device: device.id // 4 for device in jax.devices()}
    monkeypatch.setattr(hosts, "process_of", ids.get)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "live_devices", lambda devices: live)
    monkeypatch.setattr(os, "_exit", codes.append)
    hosts.end_if_another_died(ValueError("a shape is wrong"))
    assert not codes and not capsys.readouterr().err
    hosts.end_if_another_died(ValueError("Gloo AllGather failed: Connection reset by peer\nat"))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("train: another process died or cannot be reached (Gloo AllGather fai")
    assert second == "train: died: process 1" and codes[0] == 1


def test_processes_with_different_configs_are_refused(tmp_path):
    workdir = tmp_path / "run"
    for code, said in train(workdir, others=["--config.optim.learning_rate=0.5"]):
        assert code == 1
        assert "train: the config of process 1 is not that of process 0: start all" in said
    assert not workdir.exists()


def test_processes_agree():
    address = f"127.0.0.1:{free_port()}"
    first, second = told(processes([["-c", AGREE, address, str(i)] for i in range(2)], 2))
    assert first["first"] and not second["first"]
    assert first["any"] == second["any"] == [False, True]
    assert [first["in_turn"], second["in_turn"]] == ["by 0", "by 1"]
    assert first["refused"] == second["refused"]
    assert "the config of process 1 is not that of process 0" in first["refused"]
    assert first["failed"] == "ValueError: no such folder"
    assert second["failed"] == "RuntimeError: the first process failed: see what it printed"
    assert [first["parts"], second["parts"]] == [[0, 2], [4, 6]]
    assert first["whole"] == second["whole"] == list(range(8))
    assert first["noise"] == second["noise"]
    assert first["noise"][0] == pytest.approx(2.0 * 0.5 / 4, rel=0.02)  # noise * clip / mean batch


def test_one_process_is_the_first_and_asks_nobody():
    assert hosts.is_first()
    assert hosts.any_of(True) and not hosts.any_of(False)
    assert hosts.first_then_others(lambda: "done") == "done"
    tree = {"x": np.arange(3)}
    assert hosts.local_copy(tree) is tree


def test_part_of_an_address_is_refused():
    with pytest.raises(
        ValueError, match=r"--coordinator=HOST:PORT, --processes=N and --process_id"
    ):
        hosts.start("127.0.0.1:1", None, 0)


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "16"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
    ],
)
def test_what_a_cluster_is_known_by(environment, several):
    assert hosts.on_cluster(environment) == several


def test_pmap_over_several_processes_is_refused(smoke, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"one model for each process.*'jit'"):
        parallel.make(smoke("shapes", "parallel.mode=pmap").parallel)
