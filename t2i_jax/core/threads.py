"""How many cores there are, and how many threads read and decode at once."""

import os

MAX_THREADS = 16  # so that a machine with many cores does not fill its memory with batches


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere a process may use all cores
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_threads() -> int:
    """Return how many threads should read: the cores that this process may use, at most 16."""
    return min(num_cores(), MAX_THREADS)
