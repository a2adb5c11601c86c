"""A lock on a run's folder, so that two processes never train in it at once."""

import json
import os
import socket
import time
from pathlib import Path
from typing import IO

from t2i_jax.core import hosts

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None


def lock_folder(workdir: Path) -> IO[str]:
    """Lock the folder `workdir`, which exists, until the returned file is closed.

    The lock ends with the process, however that ends. Of several processes that train one model,
    only the first locks. Raises ValueError, naming the process and the host, if another process
    holds it.
    """
    if not hosts.is_first():
        return open(os.devnull, encoding="utf-8")
    file = open(workdir / "lock", "a+", encoding="utf-8")  # noqa: SIM115 (the caller closes it)
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = _read(file.read())
        file.close()
        raise ValueError(f"{workdir} is in use{holder}: name another --workdir, or wait") from None
    file.truncate(0)
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": began}))
    file.flush()
    return file


def _read(text: str) -> str:
    try:
        holder = json.loads(text)
        return f" by process {holder['process']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it is being written just now
        return " by another process"
