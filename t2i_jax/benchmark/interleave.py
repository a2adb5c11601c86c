"""Several sides, each in a process of its own, measured in turn: A B C A B C ...

All processes live through all rounds, and all but one of them wait. So a change of the machine's
speed in the course of minutes meets all sides alike.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, NamedTuple


class Measured(NamedTuple):
    """What one side came to.

    info: of `side.Side`.
    rounds: the seconds of each step, a list for each round.
    flops_per_second, bytes_per_second, core_share: of `ceiling.measure`, one for each round.
    """

    info: dict
    rounds: list[list[float]]
    flops_per_second: list[float]
    bytes_per_second: list[float]
    core_share: list[float]


def command_of(row: str, side: str, folder) -> list[str]:
    """Return the command of a side's process."""
    return [sys.executable, "-m", "t2i_jax.benchmark.side", row, side, str(folder)]


def measure_in_turn(
    commands: Mapping[str, Sequence[str]], rounds: int, steps: int
) -> dict[str, Measured]:
    """Run one process for each command, and ask each in turn for `steps` steps, `rounds` times.

    Processes are started one after another, in the order of `commands`, each when the one before is
    ready: a later one can read what an earlier one wrote.
    Raises ValueError with the message of a side that refuses, and RuntimeError with the last lines
    of one that dies.
    """
    found, sides = {}, {}
    with contextlib.ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context(tempfile.TemporaryFile("w+", errors="replace"))
            sides[name] = stack.enter_context(_Process(name, command, log))
            found[name] = Measured(sides[name].read()["info"], [], [], [], [])
        for _ in range(rounds):
            for name, side in sides.items():
                answer = side.ask({"steps": steps})
                found[name].rounds.append(answer["seconds"])
                found[name].flops_per_second.append(answer["flops_per_second"])
                found[name].bytes_per_second.append(answer["bytes_per_second"])
                found[name].core_share.append(answer["core_share"])
    return found


class _Process:
    """A side's process. It ends when its standard input is closed. log: gets what it prints."""

    def __init__(self, name: str, command: Sequence[str], log: IO[str]):
        self.name, self.log = name, log
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(BrokenPipeError):  # of a process that died: told by `ask`
            self._pipe("stdin").close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._pipe("stdout").close()

    def ask(self, request: dict) -> dict:
        try:
            print(json.dumps(request), file=self._pipe("stdin"), flush=True)
        except BrokenPipeError:
            raise self._died() from None
        return self.read()

    def read(self) -> dict:
        line = self._pipe("stdout").readline()
        if not line:
            raise self._died()
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(f"{self.name}: {answer['error']}")
        return answer

    def _pipe(self, name: str) -> IO[str]:
        pipe = getattr(self.process, name)
        assert pipe is not None
        return pipe

    def _died(self) -> RuntimeError:
        code = self.process.wait()
        self.log.seek(0)
        last = "\n".join(self.log.read().splitlines()[-15:])
        return RuntimeError(f"the process of {self.name} ended (exit code {code}):\n{last}")
