"""How many threads read and decode at once."""

import os

MAX_THREADS = 16  # so that a machine with many cores does not fill its memory with batches


def num_threads() -> int:
    """Return how many threads should read: the cores that this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):  # Linux; elsewhere a process may use all cores
        return min(len(os.sched_getaffinity(0)), MAX_THREADS)
    return min(os.cpu_count() or 1, MAX_THREADS)
