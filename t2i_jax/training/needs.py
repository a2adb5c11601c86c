"""What a compiled step needs: memory of a device, and exchanges between devices."""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping

import jax

from t2i_jax.config import copy
from t2i_jax.core.family import updates_per_step
from t2i_jax.families.load import load_trained
from t2i_jax.runs.prepare import Prepared
from t2i_jax.training import parallel
from t2i_jax.training.programs import compile_sizes, make_programs
from t2i_jax.training.start import check_batch_size, memory_of_a_device

GIB = 2**30
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def peak_bytes(compiled) -> int:
    """Return the bytes that a device needs while a compiled program runs.

    These are arguments + outputs + temporaries - outputs that reuse the memory of arguments.
    """
    memory = compiled.memory_analysis()
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return used - memory.alias_size_in_bytes


def collectives(compiled) -> dict[str, tuple[int, int]]:
    """Return {operation: (how often, bytes of the results on a device)} of a compiled program.

    What is in a loop counts once.
    """
    found: dict[str, tuple[int, int]] = {}
    pattern = re.compile(rf"= (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
    for result, name in pattern.findall(compiled.as_text()):
        count, size = found.get(name, (0, 0))
        found[name] = (count + 1, size + _bytes_of(result))
    return found


def _bytes_of(result: str) -> int:
    """Return the bytes of arrays as HLO writes them, such as "(f32[8,4]{1,0}, s32[])"."""
    total = 0
    for bits, shape in re.findall(r"[a-z]+(\d*)\w*\[([\d,]*)\]", result):
        total += int(bits or 8) // 8 * math.prod(int(n) for n in shape.split(",") if n)
    return total


def report_needs(compiled: Mapping, prepared: Prepared) -> None:
    """Print the memory of a compiled step and what there is.

    compiled: the step by the size of pictures; the largest need counts.
    Raises ValueError, naming settings that need less and how much, if it does not fit.
    """
    needed, available = max(map(peak_bytes, compiled.values())), memory_of_a_device()
    if needed > available:
        known = "; ".join(
            f"with {setting}: {less / GIB:,.1f} GiB"
            for setting, less in alternatives(prepared)
            if less < needed
        )
        raise ValueError(
            f"a step needs {needed / GIB:,.1f} GiB of each device, and there are "
            f"{available / GIB:,.1f} GiB{'; ' if known else ''}{known}"
        )
    print(f"step: {needed / GIB:,.2f} GiB of the {available / GIB:,.1f} GiB of each device")


def alternatives(prepared: Prepared) -> Iterator[tuple[str, int]]:
    """Yield settings with which a step may fit, and the bytes that it then needs of a device."""
    config = prepared.config
    for section, name, value in (
        ("train", "batch_size", config.train.batch_size // 2),
        ("train", "accumulate", config.train.accumulate * 2),
        ("parallel", "remat", "full"),
        ("parallel", "fsdp", jax.device_count() // config.parallel.tensor),
    ):
        if config[section].get(name, value) == value:
            continue
        changed = copy(config)
        changed[section][name] = value
        place = parallel.make(changed.parallel)
        # A batch that does not divide so, or a family that refuses the value.
        with contextlib.suppress(ValueError):
            other = prepared._replace(config=changed, family=load_trained(changed))
            check_batch_size(changed, place.devices, updates_per_step(other.family))
            compiled = compile_sizes(make_programs(other, place), other, place)
            yield f"{section}.{name}={value}", max(map(peak_bytes, compiled.values()))
