"""Archives of npm packages: fetched once with the user's own npm, checked by hash, read without being unpacked.

An archive is named by its spec, "NAME@VERSION", and believed only if it has the integrity that the caller knows
("sha512-...", as in `npm view NAME@VERSION dist.integrity`). Nothing of a package is ever run or installed.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


def file_name(spec: str) -> str:
    """The name npm gives the archive: "@scope/name@1.0.0" -> "scope-name-1.0.0.tgz"."""
    name, _, version = spec.rpartition("@")
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def missing(packages: Mapping[str, str], folder: Path) -> list[str]:
    """The specs of `packages` ({spec: integrity}) whose archive is not in `folder`."""
    return [spec for spec in packages if not (Path(folder) / file_name(spec)).is_file()]


def fetch(packages: Mapping[str, str], folder: Path, archives: str | Path | None = None) -> None:
    """Sees to it that `folder` holds the right archive of each of `packages` ({spec: integrity}).

    What is not there is copied from the folder `archives`, if one is given, or else fetched with `npm pack`. Archives
    appear in `folder` only whole and checked. Raises FileNotFoundError if archives or npm are missing, RuntimeError if
    npm fails, ValueError if an archive has another hash than it should.
    """
    folder = Path(folder)
    needed = missing(packages, folder)
    for spec in packages.keys() - set(needed):
        check(folder / file_name(spec), packages[spec], "delete it and try again")
    if not needed:
        return
    get = _copier(needed, Path(archives).expanduser()) if archives else _packer(needed)
    folder.mkdir(parents=True, exist_ok=True)
    for spec in needed:
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-") as temporary:
            archive = get(spec, Path(temporary))
            check(archive, packages[spec], "it is damaged or another version", name=file_name(spec))
            os.replace(archive, folder / file_name(spec))


def check(archive: Path, integrity: str, hint: str, name: str | None = None) -> None:
    """Raises ValueError, naming file, expected and found, unless the file's hash is `integrity` ("sha512-BASE64")."""
    algorithm, _, expected = integrity.partition("-")
    with open(archive, "rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, algorithm).digest()).decode()
    if found != expected:
        raise ValueError(f"{name or archive}: expected {integrity}, found {algorithm}-{found}; {hint}")


def files(archive: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of the plain files of an archive whose name starts with `prefix`; names start with "package/"."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(prefix):
                yield member.name, tar.extractfile(member).read()


def _copier(needed, archives):
    """spec, folder -> the path of a copy in that folder; all that is missing is said at once."""
    if absent := missing(dict.fromkeys(needed, ""), archives):
        raise FileNotFoundError(f"{archives} does not hold {_listed(absent)}")
    return lambda spec, to: Path(shutil.copyfile(archives / file_name(spec), to / file_name(spec)))


def _packer(needed):
    """spec, folder -> the path of the archive that `npm pack` leaves in that folder."""
    by_hand = f"or fetch {_listed(needed)} from the npm registry by other means and pass --archives=FOLDER_OF_THEM"
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"npm was not found: install Node.js, which has it, {by_hand}")

    def pack(spec, to):
        command = [npm, "pack", spec, "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(command, cwd=to, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        archive = to / file_name(spec)
        if done.returncode or not archive.is_file():
            why = "\n".join(done.stderr.strip().splitlines()[-5:]) or f"exit status {done.returncode}, no archive"
            raise RuntimeError(f"npm pack {spec} failed; try again, {by_hand}\n{why}")
        return archive

    return pack


def _listed(specs):
    return ", ".join(map(file_name, specs))
