"""Archives of packages, fetched by exact name and believed by hash only: what npm.py and pypi.py have in common.

A table of packages is {spec: (file name, hash)}; a hash is "ALGORITHM-BASE64" (as npm writes it) or a sha256 in hex (as
PyPI writes it). Nothing of a package is ever run or installed.
"""

import base64
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Packages = Mapping[str, tuple[str, str]]


def missing(packages: Packages, folder: str | Path) -> list[str]:
    """The specs whose archive is not in `folder`."""
    return [spec for spec, (name, _) in packages.items() if not (Path(folder) / name).is_file()]


def fetch(packages: Packages, folder: Path, archives: str | Path | None, fetcher: Callable) -> None:
    """Sees to it that `folder` holds the right archive of each package.

    What is not there is copied from the folder `archives`, if one is given, or else fetched: `fetcher(names)`, told the
    file names of all that is needed, gives a function of (spec, folder) that puts the archive into that folder and
    returns its path. Archives appear in `folder` only whole and checked. Raises FileNotFoundError if archives are
    missing, ValueError if one has another hash than it should, and what the fetcher raises.
    """
    folder = Path(folder)
    needed = missing(packages, folder)
    for spec in packages.keys() - set(needed):
        name, known = packages[spec]
        check(folder / name, known, "delete it and try again")
    if not needed:
        return
    wanted = {spec: packages[spec] for spec in needed}
    get = _copier(wanted, Path(archives).expanduser()) if archives else fetcher(listed(wanted))
    folder.mkdir(parents=True, exist_ok=True)
    for spec, (name, known) in wanted.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-") as temporary:
            archive = get(spec, Path(temporary))
            check(archive, known, "it is damaged or another version", name=name)
            os.replace(archive, folder / name)


def check(archive: Path, known: str, hint: str, name: str | None = None) -> None:
    """Raises ValueError, naming file, expected and found, unless the file's hash is `known`."""
    algorithm, dash, _ = known.partition("-")
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, algorithm if dash else "sha256").digest()
    found = f"{algorithm}-{base64.b64encode(digest).decode()}" if dash else digest.hex()
    if found != known:
        raise ValueError(f"{name or archive}: expected {known}, found {found}; {hint}")


def tail(output: str) -> str:
    """The last lines of what a failed program said."""
    return "\n".join(output.strip().splitlines()[-5:])


def listed(packages: Packages, specs: Iterable[str] | None = None) -> str:
    """The file names of packages (of these specs), for a message."""
    return ", ".join(packages[spec][0] for spec in specs or packages)


def _copier(wanted, archives):
    """spec, folder -> the path of a copy in that folder; all that is missing is said at once."""
    if absent := missing(wanted, archives):
        raise FileNotFoundError(f"{archives} does not hold {listed(wanted, absent)}")
    return lambda spec, to: Path(shutil.copyfile(archives / wanted[spec][0], to / wanted[spec][0]))
