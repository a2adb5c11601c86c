"""Spikes of the loss: go back to a checkpoint before one, and leave out the batches that led to it.

Source: arXiv 2204.02311, section 5.1. What follows is the same in every repetition of a run: a run
that is killed after it went back finds the same spike again, or a checkpoint that knows of it.
"""

from collections.abc import Callable, Mapping

from t2i_jax.runs import checkpoint
from t2i_jax.training.start import Begun


class Spike(Exception):
    """The loss jumped.

    step: the step at which it was seen.
    line: the step of the last line of metrics before it.
    loss, before: the loss now, and of that line.
    """

    def __init__(self, step: int, line: int, before: float, loss: float):
        super().__init__(f"the loss rose from {before:.4g} to {loss:.4g} before step {step}")
        self.step, self.line = step, line


def total_loss(means: Mapping[str, float]) -> float:
    """Return the loss of a line of metrics, the sum over all players."""
    return sum(value for name, value in means.items() if name.split("/")[-1] == "loss")


def go_back(spike: Spike, left_out: int, manager, start: Callable[[], Begun]) -> Begun:
    """Return where to go on from after a spike. Deletes the checkpoints that may know of it.

    left_out: how many batches were left out when the spike came. More are left out now, so a run
        that goes back to the same checkpoint again does not meet the same batches.
    start: () -> where the newest checkpoint goes on from, or a fresh start.
    """
    checkpoint.wait(manager)
    for step in manager.all_steps():
        if step > spike.line:
            manager.delete(step)
    begun = start()
    more = spike.step - begun.step
    print(
        f"{spike}: training goes back to step {begun.step} and leaves out {more} batches",
        flush=True,
    )
    return begun._replace(left_out=left_out + more)
