"""Archives of npm packages: fetched once with the user's own npm, checked by hash, read without being unpacked.

An archive is named by its spec, "NAME@VERSION", and believed only if it has the integrity that the caller knows
("sha512-...", as in `npm view NAME@VERSION dist.integrity`). Nothing of a package is ever run or installed.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from t2i_jax.data import archives as common


def file_name(spec: str) -> str:
    """The name npm gives the archive: "@scope/name@1.0.0" -> "scope-name-1.0.0.tgz"."""
    name, _, version = spec.rpartition("@")
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def missing(packages: Mapping[str, str], folder: Path) -> list[str]:
    """The specs of `packages` ({spec: integrity}) whose archive is not in `folder`."""
    return common.missing(_table(packages), folder)


def fetch(packages: Mapping[str, str], folder: Path, archives: str | Path | None = None) -> None:
    """Sees to it that `folder` holds the right archive of each of `packages` ({spec: integrity}).

    What is not there is copied from the folder `archives`, if one is given, or else fetched with `npm pack`. Archives
    appear in `folder` only whole and checked. Raises FileNotFoundError if archives or npm are missing, RuntimeError if
    npm fails, ValueError if an archive has another hash than it should.
    """
    common.fetch(_table(packages), folder, archives, _packer)


def files(archive: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of the plain files of an archive whose name starts with `prefix`; names start with "package/"."""
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(prefix):
                yield member.name, tar.extractfile(member).read()


def _table(packages):
    return {spec: (file_name(spec), integrity) for spec, integrity in packages.items()}


def _packer(names):
    """spec, folder -> the path of the archive that `npm pack` leaves in that folder; `names` are all that is needed."""
    by_hand = f"or fetch {names} from the npm registry by other means and pass --archives=FOLDER_OF_THEM"
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"npm was not found: install Node.js, which has it, {by_hand}")

    def pack(spec, to):
        command = [npm, "pack", spec, "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(command, cwd=to, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        archive = to / file_name(spec)
        if done.returncode or not archive.is_file():
            why = common.tail(done.stderr) or f"exit status {done.returncode}, no archive"
            raise RuntimeError(f"npm pack {spec} failed; try again, {by_hand}\n{why}")
        return archive

    return pack
