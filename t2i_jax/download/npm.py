"""Archives of npm packages: fetched once with the user's own npm, verified by hash.

An archive is named by its spec, "NAME@VERSION". It is accepted only if it has the integrity that
the caller knows ("sha512-...", as in `npm view NAME@VERSION dist.integrity`). It is read without
being unpacked, and nothing of a package is ever run or installed.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from t2i_jax.download import archives as common


def file_name(spec: str) -> str:
    """Return the name npm gives the archive: "@scope/name@1.0.0" -> "scope-name-1.0.0.tgz"."""
    name, _, version = spec.rpartition("@")
    return f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def missing(packages: Mapping[str, str], folder: Path) -> list[str]:
    """Return the specs of `packages` ({spec: integrity}) whose archive is not in `folder`."""
    return common.missing(_table(packages), folder)


def fetch(packages: Mapping[str, str], folder: Path, archives: str | Path | None = None) -> None:
    """Make sure that `folder` holds the right archive of each package.

    packages: {spec: integrity}.
    archives: a folder from which missing archives are copied, or None for `npm pack`.

    An archive appears in `folder` only when it is complete and checked. Raises FileNotFoundError if
    archives or npm are missing, RuntimeError if npm fails, ValueError if an archive has the wrong
    hash.
    """
    common.fetch(_table(packages), folder, archives, _make_fetcher)


def files(archive: Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files of an archive.

    prefix: only names that start with it. All names start with "package/".
    """
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None and member.name.startswith(prefix):
                yield member.name, file.read()


def _table(packages):
    return {spec: (file_name(spec), integrity) for spec, integrity in packages.items()}


def _make_fetcher(names):
    """Return (spec, folder) -> path of the archive that `npm pack` puts there.

    names: the file names of all that is missing, for error messages.
    """
    by_hand = (
        f"or fetch {names} from the npm registry by other means and pass --archives=FOLDER_OF_THEM"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(f"npm was not found: install Node.js, which has it, {by_hand}")

    def pack(spec, to):
        command = [npm, "pack", spec, "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(
            command, cwd=to, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        archive = to / file_name(spec)
        if done.returncode or not archive.is_file():
            why = common.last_lines(done.stderr) or f"exit status {done.returncode}, no archive"
            raise RuntimeError(f"npm pack {spec} failed; try again, {by_hand}\n{why}")
        return archive

    return pack
