"""Endurance: training is killed, stopped, damaged and starved, and must go on to the same bits.

python scripts/endurance.py [--out=endurance]

Each case ends with the run that was never disturbed, bit for bit, or with one line that says why
and nothing lost. Prints a Markdown table; the exit code is 1 if a case ended in another way.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from scripts.damaged_checkpoint import DAMAGES, damage, files_of, restore_damaged  # noqa: E402
from scripts.same_run import arrays, differences, same_bits  # noqa: E402

SETTINGS = {
    "train.steps": 24,
    "train.save_every": 4,
    "train.log_every": 3,
    "train.eval_every": 8,
    "train.grid": 2,
    "train.validation_examples": 8,
    "evaluate.num": 1,
    "model.dropout": 0.1,
}
HALF = 16  # a step that is saved and evaluated
LONGEST_SECONDS = 120  # of one command
DEATH_SECONDS = 30  # within which the other processes end when one is killed


class Bad(Exception):
    """A case ended in a way that it must not."""


class Base(NamedTuple):
    """What all cases start from.

    folder: where runs are made.
    whole: a run that was never disturbed.   half: the same, killed after step `HALF`.
    seconds: how long the undisturbed command takes.
    chance: the moments of kills come from it.
    """

    folder: Path
    whole: Path
    half: Path
    seconds: float
    chance: random.Random


class Row(NamedTuple):
    """A line of the table."""

    case: str
    times: int
    ended: str
    seconds: float = 0.0


# How commands are started, and how they end


def start(workdir: Path, *more: str, **settings) -> subprocess.Popen:
    """Start training in `workdir`; its output goes to a file beside that folder."""
    with open(f"{workdir}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen(
            command(workdir, *more, **settings), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )


def command(workdir: Path, *more: str, **settings) -> list[str]:
    """Return the command that trains in `workdir`."""
    changed = [f"--config.{key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    train = [sys.executable, "main.py", "train", f"--config={ROOT}/configs/shapes.py:smoke"]
    return [*train, f"--workdir={workdir}", *changed, *more]


def start_two(workdir: Path) -> list[subprocess.Popen]:
    """Start two processes that train one model; each has its own output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    group = (f"--coordinator={address}", "--processes=2")
    return [start(workdir, *group, f"--process_id={i}") for i in range(2)]


def said(workdir: Path) -> str:
    """Return what the commands in `workdir` printed. Raises Bad if a trace is among it."""
    text = Path(f"{workdir}.log").read_text(encoding="utf-8", errors="replace")
    if "Traceback" in text:
        raise Bad(f"a trace in {workdir}.log")
    return text


def finish(base: Base, workdir: Path, like: Path | None = None, processes: int = 1) -> None:
    """Run the command to its end; the run must be the one `like`: see `compare`."""
    running = start_two(workdir) if processes == 2 else [start(workdir)]
    codes = [process.wait(LONGEST_SECONDS) for process in running]
    if any(codes):
        raise Bad(f"exit codes {codes}: see {workdir}.log")
    compare(base, workdir, like)


def compare(base: Base, workdir: Path, like: Path | None = None) -> None:
    """Raise Bad unless a run equals `like` (by default the undisturbed), bit for bit."""
    said(workdir)
    if different := differences(workdir, like or base.whole):
        raise Bad(f"{workdir} differs in {len(different)} arrays, such as {different[0]}")


def wait_for(moment: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Wait until moment(). Returns False if the process ended before."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not moment():
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def stop(process: subprocess.Popen, number: int) -> int:
    """Send a signal and wait until the process has ended. Returns its exit code."""
    process.send_signal(number)
    return process.wait(LONGEST_SECONDS)


def lines(workdir: Path) -> int:
    """Return how many lines metrics.jsonl has."""
    with contextlib.suppress(FileNotFoundError):
        return (workdir / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def saving(workdir: Path) -> set[str]:
    """Return the names of Orbax's temporary folders: saves that are not complete."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in (workdir / "checkpoints").iterdir() if "tmp" in path.name}
    return set()


# The cases: each yields rows of the table, and raises Bad


def killed_at_random(base: Base, kills: int = 15) -> Iterator[Row]:
    """SIGKILL at moments spread over the whole command, from its start to its end."""
    left, runs = kills, 0
    while left:
        workdir, runs = base.folder / f"killed_{runs}", runs + 1
        process = start(workdir)
        while left:
            time.sleep(base.chance.uniform(0, base.seconds))
            if process.poll() is not None:
                break
            stop(process, signal.SIGKILL)
            left, process = left - 1, start(workdir)
        if code := process.wait(LONGEST_SECONDS):
            raise Bad(f"exit code {code}: see {workdir}.log")
        compare(base, workdir)
    yield Row("SIGKILL at a random moment", kills, "bit-equal")


def killed_while_saving(base: Base) -> Iterator[Row]:
    """SIGKILL as soon as the first or second save of a command begins, or just after that."""
    workdir, which = base.folder / "killed_saving", (1, 2, 1, 1, 1)
    for number in which:
        seen, before, process = set(), saving(workdir), start(workdir)

        def begun(seen=seen, before=before, number=number):
            seen |= saving(workdir) - before
            return len(seen) >= number

        if not wait_for(begun, process):
            raise Bad(f"no save to kill: see {workdir}.log")
        time.sleep(base.chance.uniform(0, 0.02))
        stop(process, signal.SIGKILL)
    finish(base, workdir)
    yield Row("SIGKILL during a save", len(which), "bit-equal")


def stopped(base: Base) -> Iterator[Row]:
    """SIGTERM, of one process: in training, and while it evaluates."""
    workdir = base.folder / "stopped"
    for number in range(1, 4):
        process, goal = start(workdir), lines(workdir) + number
        if not wait_for(lambda goal=goal: lines(workdir) >= goal, process):
            raise Bad(f"it ended by itself: see {workdir}.log")
        if (code := stop(process, signal.SIGTERM)) != 128 + signal.SIGTERM:
            raise Bad(f"exit code {code} after SIGTERM: see {workdir}.log")
    if said(workdir).count("train: SIGTERM: saved at step") != 3:
        raise Bad(f"not said where it was saved: see {workdir}.log")
    finish(base, workdir)
    yield Row("SIGTERM", 3, "saved, said; bit-equal")


def one_of_two(base: Base) -> Iterator[Row]:
    """SIGTERM, then SIGKILL, on one of two processes in turn."""
    whole, workdir = base.folder / "two_whole", base.folder / "two_stopped"
    for code in [process.wait(LONGEST_SECONDS) for process in start_two(whole)]:
        if code:
            raise Bad(f"exit code {code}: see {whole}.log")
    for number in range(5):
        running, goal = start_two(workdir), lines(workdir) + 1
        if not wait_for(lambda goal=goal: lines(workdir) >= goal, running[0]):
            raise Bad(f"it ended by itself: see {workdir}.log")
        time.sleep(base.chance.uniform(0, 0.1))
        running[number % 2].send_signal(signal.SIGTERM)
        codes = [process.wait(LONGEST_SECONDS) for process in running]
        if codes != [143 if i == number % 2 else 1 for i in range(2)]:
            raise Bad(f"exit codes {codes} after SIGTERM: see {workdir}.log")
    finish(base, workdir, whole, processes=2)
    yield Row("SIGTERM on one of two processes, in turn", 5, "both save and end; bit-equal")
    slowest, workdir = 0.0, base.folder / "two_killed"
    for number in range(2):
        running, goal = start_two(workdir), lines(workdir) + 2
        if not wait_for(lambda goal=goal: lines(workdir) >= goal, running[0]):
            raise Bad(f"it ended by itself: see {workdir}.log")
        stop(running[number], signal.SIGKILL)
        began = time.monotonic()
        running[1 - number].wait(LONGEST_SECONDS)
        slowest = max(slowest, time.monotonic() - began)
    if slowest > DEATH_SECONDS:
        raise Bad(f"the other process ended after {slowest:.0f} s")
    finish(base, workdir, whole, processes=2)
    ended = f"the other ended within {slowest:.0f} s; bit-equal"
    yield Row("SIGKILL on one of two processes, in turn", 2, ended)


def damaged(base: Base) -> Iterator[Row]:
    """Truncate, flip a bit of and delete each file of the newest checkpoint in turn."""
    found = restore_damaged(base.half, base.folder / "damaged", SETTINGS)
    for how in DAMAGES:
        ends = Counter(ended for (name, each), ended in found.items() if each == how)
        if wrong := [file for (file, each), e in found.items() if each == how and "BAD" in e]:
            raise Bad(f"{how}: {len(wrong)} files, such as {wrong[0]}")
        listed = "; ".join(f"{count} {ended}" for ended, count in ends.most_common())
        yield Row(f"a file of the checkpoint {how}, restored", sum(ends.values()), listed)


def damaged_then_trained(base: Base) -> Iterator[Row]:
    """The command goes on with a checkpoint of which the largest file of a part is damaged."""
    sizes = {path: (base.half / path).stat().st_size for path in files_of(base.half)}
    parts = ("train/", "ema/", "notes/", "evaluation.json")
    cases = [(part, "flipped") for part in parts]
    cases += [("train/", "truncated"), ("evaluation.json", "deleted")]
    for number, (part, how) in enumerate(cases):
        workdir = base.folder / f"damaged_{number}"
        shutil.copytree(base.half, workdir)
        inside = [path for path in sizes if part in path]
        damage(workdir / max(inside, key=lambda path: sizes[path]), how)
        finish(base, workdir)
    ended = "the checkpoint before is used, or the evaluation repeated; bit-equal"
    yield Row("a file of each part damaged, and trained to the end", len(cases), ended)


def full_disk(base: Base) -> Iterator[Row]:
    """No file may become larger than so many bytes: what a full disk is to the program."""
    limits = (600, 12_288, 65_536)
    for limit in limits:
        workdir = base.folder / f"full_{limit}"
        shutil.copytree(base.half, workdir)
        result = subprocess.run(
            command(workdir),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            preexec_fn=lambda limit=limit: resource.setrlimit(
                resource.RLIMIT_FSIZE, (limit, limit)
            ),
        )
        told = [x for x in result.stderr.splitlines() if x.startswith("train: ")]
        expected = f"train: {workdir} could not be written"
        if result.returncode != 1 or len(told) != 1 or not told[0].startswith(expected):
            raise Bad(f"exit code {result.returncode} with a full disk: {result.stderr[-500:]}")
        finish(base, workdir)
    ended = "one line with path and last good step; with room again, bit-equal"
    yield Row("disk full", len(limits), ended)


def two_jobs(base: Base) -> Iterator[Row]:
    """The same command twice: one after the other, and both at once."""
    for pause in (True, False):
        workdir = base.folder / f"jobs_{pause}"
        first = start(workdir)
        if pause:
            wait_for((workdir / "lock").exists, first)
        second = start(workdir)
        codes = sorted(process.wait(LONGEST_SECONDS) for process in (first, second))
        if codes != [0, 1] or said(workdir).count("is in use by") != 1:
            raise Bad(f"exit codes {codes}: see {workdir}.log")
        compare(base, workdir)
    yield Row("two jobs on one folder", 2, "one is refused, naming the other; bit-equal")


def three_arms(base: Base) -> Iterator[Row]:
    """Uninterrupted equals resumed, and both differ from a restart with weights alone."""
    resumed, alone = base.folder / "resumed", base.folder / "weights_alone"
    shutil.copytree(base.half, resumed)
    finish(base, resumed)
    yield Row("oracle: resumed against uninterrupted", 1, "bit-equal")
    left = {"train.steps": SETTINGS["train.steps"] - HALF, "init_from": base.half}
    if code := start(alone, **left).wait(LONGEST_SECONDS):
        raise Bad(f"exit code {code}: see {alone}.log")
    whole, other = arrays(base.whole), arrays(alone)
    weights = [name for name in whole if name.startswith("train['params']")]
    different = sum(not same_bits(whole[name], other[name]) for name in weights)
    if different < len(weights) / 2:
        raise Bad(f"only {different} of {len(weights)} weights differ")
    ended = f"differs in {different} of {len(weights)} arrays of weights, as it must"
    yield Row("oracle: restart with weights alone", 1, ended)


CASES = (
    killed_at_random,
    killed_while_saving,
    stopped,
    one_of_two,
    damaged,
    damaged_then_trained,
    full_disk,
    two_jobs,
    three_arms,
)


def prepare(folder: Path) -> Base:
    """Make the undisturbed run, and the one that is killed half way."""
    os.environ["T2I_JAX_DATA"] = str(folder / "data")
    # Programs are compiled once: by the first run.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    whole, half = folder / "whole", folder / "half"
    for workdir in (folder / "first", whole):
        began = time.monotonic()
        if code := start(workdir).wait(LONGEST_SECONDS * 3):
            raise Bad(f"exit code {code}: see {workdir}.log")
    seconds = time.monotonic() - began
    process = start(half)
    saved = half / "checkpoints" / str(HALF)
    wait_for((saved / "evaluation.json").exists, process)
    stop(process, signal.SIGKILL)
    shutil.rmtree(half / "checkpoints" / str(HALF + 4), ignore_errors=True)
    base = Base(folder, whole, half, seconds, random.Random(0))
    if different := differences(folder / "first", whole):
        raise Bad(f"two undisturbed runs differ in {different}")
    return base


def main() -> int:
    """Run all cases. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="endurance", help="a new folder for the runs (endurance)")
    folder = Path(parser.parse_args().out).resolve()
    folder.mkdir(parents=True)
    began, rows, bad = time.monotonic(), [], 0
    base = prepare(folder)
    print(f"an undisturbed run takes {base.seconds:.0f} s", flush=True)
    for case in CASES:
        since = time.monotonic()
        try:
            for row in case(base):
                now = time.monotonic()
                rows.append(row._replace(seconds=now - since))
                since = now
                print(f"{row.case}: {row.ended} ({rows[-1].seconds:.0f} s)", flush=True)
        except (Bad, subprocess.TimeoutExpired) as error:
            bad += 1
            rows.append(Row(case.__name__, 1, f"BAD: {error}", time.monotonic() - since))
            print(f"{case.__name__}: BAD: {error}", flush=True)
    minutes = (time.monotonic() - began) / 60
    print("\n| case | times | how it ended | seconds |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.case} | {row.times} | {row.ended} | {row.seconds:.0f} |")
    print(f"\n{minutes:.1f} minutes in all; {bad} cases ended badly")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
