"""Several processes that train one model: how they start, agree, and wait for each other.

The first process writes what a run writes. With one process, nothing here does anything.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from t2i_jax.core.files import fingerprint

HEARTBEAT_SECONDS = 20  # a process that is silent for so long is dead, and JAX ends the others
# What the errors of a collective contain that lost one of its processes.
LOST = ("Gloo", "NCCL", "UNAVAILABLE", "heartbeat")


def start(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Join the other processes of a training. Call it before JAX is used.

    coordinator: "HOST:PORT" of the first process. Without these three, they come from the cluster
        (SLURM, Open MPI, a TPU pod), and a process that is on none is alone.
    Raises ValueError if only some of the three are given.
    """
    given = [x is not None for x in (coordinator, processes, process_id)]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator=HOST:PORT, --processes=N and --process_id=I belong together: give all "
            "three, on every host, or none"
        )
    if all(given) or on_cluster(os.environ):
        jax.distributed.initialize(
            coordinator, processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )


def on_cluster(environment: Mapping[str, str]) -> bool:
    """Return whether these environment variables are of one of several processes of a cluster."""
    tasks = (environment.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    several = any(count.isdecimal() and int(count) > 1 for count in tasks)
    return several or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def is_first() -> bool:
    """Return whether this is the process that writes."""
    return jax.process_index() == 0


def first_then_others(action: Callable) -> Any:
    """Return action(), called by the first process, and by the others once it is done there.

    Raises RuntimeError in the others if it raised in the first.
    """
    if jax.process_count() == 1:
        return action()
    error, result = None, None
    if is_first():
        try:
            result = action()
        except Exception as raised:  # told to the others, which would wait for ever
            error = raised
    failed = any_of(error is not None)
    if error:
        raise error
    if failed:
        raise RuntimeError("the first process failed: see what it printed")
    return result if is_first() else action()


def any_of(flag: bool) -> bool:
    """Return whether `flag` is true in any process. All processes have to call it."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).any())


def wait(name: str) -> None:
    """Wait until all processes are here. name: says where, the same in all of them."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def process_of(device) -> int:
    """Return the number of the process that a device belongs to."""
    return device.process_index


def end_if_another_died(error: Exception) -> None:
    """If `error` says that a connection was lost, print which process died, and end this one.

    Without the others nothing can be saved, and whatever cleans up would wait for them.
    """
    if jax.process_count() == 1 or not any(word in str(error) for word in LOST):
        return
    why = str(error).partition("\n")[0]
    print(
        f"train: another process died or cannot be reached ({why}); the same command goes on from "
        "the last checkpoint",
        file=sys.stderr,
    )
    everybody = {process_of(device) for device in jax.devices()}
    with (
        contextlib.suppress(Exception),  # the first process is asked, which may be the dead one
        multihost_utils.live_devices(jax.devices()) as live,
    ):
        dead = everybody - {process_of(device) for device in live}
        listed = ", ".join(map(str, sorted(dead))) or "none, the connection was lost"
        print(f"train: died: process {listed}", file=sys.stderr)
        os._exit(1)  # before JAX asks again
    os._exit(1)


def refuse_differences(texts: Mapping[str, str]) -> None:
    """Raise ValueError, naming what and where, if `texts` are not the same in all processes.

    texts: {what it is: its content}, such as the config.
    """
    if jax.process_count() == 1:
        return
    digests = np.array([int(fingerprint(text)[:8], 16) for text in texts.values()], np.uint32)
    everywhere = multihost_utils.process_allgather(digests)
    for i, what in enumerate(texts):
        others = np.flatnonzero(everywhere[:, i] != everywhere[0, i])
        if len(others):
            listed = ", ".join(map(str, others))
            raise ValueError(
                f"{what} of process {listed} is not that of process 0: start all processes with "
                "the same command, code and data"
            )


def local_copy(tree):
    """Return global arrays as whole arrays of this process. All processes have to call it."""
    if jax.process_count() == 1:
        return tree
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("all",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    copies = jax.jit(lambda tree: tree, out_shardings=whole)(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), copies)
