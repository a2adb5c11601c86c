"""What a compiled program tells while it runs: the step it is at, and the pictures so far.

The program is given a number that stands for a Python function (`watched_inputs`), so another
function compiles nothing anew. But a program that tells is another one than a program that does
not: XLA may round differently, and now and then a pixel differs by one level.
"""

import contextlib
import contextvars
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax.core.arguments import MAX_NUM, whole_number

WATCHED = "watched"  # the name of an input of abilities


class Progress(NamedTuple):
    """How far the drawing of a batch of pictures is.

    step: how many of `steps` are done.
    images: uint8 [N, H, W, 3], the pictures as the model expects them to become; None if this step
        has no preview.
    """

    step: int
    steps: int
    images: np.ndarray | None


Listen = Callable[[Progress], Any]


def unheard(progress: Progress) -> None:
    """Do nothing. A watched picture is drawn again with it, so that the program is the same."""


class _Listener:
    """Calls `listen` once for each step of a batch, and keeps the first error that it raises."""

    def __init__(self, listen: Listen, previews: int):
        self.listen, self.previews = listen, previews
        self.number, self.seen, self.error = next(_numbers), 0, None
        self.lock = threading.Lock()  # XLA calls from threads of its own

    def hear(self, progress: Progress) -> None:
        with self.lock:
            if progress.step <= self.seen or self.error is not None:
                return
            self.seen = progress.step
            try:
                self.listen(progress)
            except BaseException as error:  # it cannot pass through compiled code
                self.error = error


_numbers = itertools.count()
_listeners: dict[int, _Listener] = {}
_current: contextvars.ContextVar[_Listener | None] = contextvars.ContextVar("watch", default=None)


@contextlib.contextmanager
def watch(listen: Listen | None, previews: int = 0) -> Iterator[None]:
    """Call `listen` for each step of what is drawn in this block. None changes nothing.

    An error that `listen` raises is raised at the end of the block.
    previews: after how many steps there is a preview each time; 0 for none. Raises ValueError for
        what is no such number.
    """
    whole_number("previews", previews, 0, MAX_NUM)
    if listen is None:
        yield
        return
    listener = _Listener(listen, previews)
    _listeners[listener.number] = listener
    token = _current.set(listener)
    try:
        yield
        jax.effects_barrier()  # until all calls have arrived
    finally:
        _current.reset(token)
        del _listeners[listener.number]
    if listener.error is not None:
        raise listener.error


def watched_inputs(rows: int, shown: int) -> dict[str, np.ndarray]:
    """Return the inputs that tell an ability who watches it; {} if nobody does.

    It is called before each batch. rows: of the batch. shown: how many of them are no padding.
    """
    listener = _current.get()
    if listener is None:
        return {}
    jax.effects_barrier()  # the last calls of the batch before
    listener.seen = 0
    told = (listener.number, listener.previews, shown)
    return {WATCHED: np.tile(np.asarray(told, np.int32), (rows, 1))}


def tell(inputs: Mapping[str, Any], step, steps: int, preview: Callable[[], Any]) -> None:
    """Tell who watches an ability, by its inputs, that `step` of `steps` steps are done.

    inputs: they have WATCHED.
    step: int []; may be traced.
    preview: () -> uint8 [B, H, W, 3].
    """
    number, every, shown = inputs[WATCHED][0]

    def show():
        jax.debug.callback(_deliver, number, step, steps, shown, preview())

    def tell_step():
        jax.debug.callback(_deliver, number, step, steps)

    jax.lax.cond((every > 0) & (step % jnp.maximum(every, 1) == 0), show, tell_step)


def _deliver(number, step, steps, shown=0, images=None) -> None:
    if listener := _listeners.get(int(number)):
        pictures = None if images is None else np.asarray(images)[: int(shown)]
        listener.hear(Progress(int(step), int(steps), pictures))
