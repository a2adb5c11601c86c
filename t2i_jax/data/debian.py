"""Debian packages: fetched once with the user's own apt, checked by hash, read without dpkg and without being installed.

A package is named by its spec, "NAME=VERSION", and believed only if it is the file, with the sha256, that the caller knows
(as on https://packages.debian.org/NAME, under "all"). None of its scripts is ever run.
"""

import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from t2i_jax.data import archives as common

MAGIC = b"!<arch>\n"
HEADER = 60  # bytes: name 16, time 12, owner 6, group 6, mode 8, size 10 (decimal), end 2
COMPRESSIONS = ("", ".gz", ".xz", ".bz2")  # of those that dpkg writes, what Python reads


def fetch(packages: common.Packages, folder: str | Path, archives: str | Path | None = None) -> None:
    """Sees to it that `folder` holds the right file of each of `packages` ({spec: (file name, sha256 in hex)}).

    What is not there is copied from the folder `archives`, if one is given, or else fetched with `apt-get download`. Files
    appear in `folder` only whole and checked. Raises FileNotFoundError if archives or apt are missing, RuntimeError if
    apt fails, ValueError if a file has another hash than it should.
    """
    common.fetch(packages, Path(folder), archives, lambda names: _downloader(packages, names))


def files(archive: str | Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """(name, content) of the plain files that a .deb would install whose name ("usr/share/...") starts with `prefix`.

    Raises ValueError, saying why, if it is not a .deb that can be read.
    """
    name, data = _data(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                if member.isfile() and path.startswith(prefix):
                    yield path, tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError) as error:
        raise ValueError(f"{archive} is damaged: {name} in it cannot be read ({error})") from error


def _data(archive):
    """(name, content) of the data.tar of a .deb, which is an `ar` archive."""
    with open(archive, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{archive} is not a Debian package: it does not start as an ar archive does")
        while len(header := file.read(HEADER)) == HEADER:
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
            if header[58:] != b"`\n" or not size.isdigit():
                raise ValueError(f"{archive} is damaged: no header at byte {file.tell() - HEADER:,}")
            if name.startswith("data.tar"):
                if (kind := name.removeprefix("data.tar")) not in COMPRESSIONS:
                    raise ValueError(f"{archive} holds {name}: Python does not read {kind}, only {', '.join(COMPRESSIONS[1:])}")
                return name, file.read(int(size))
            file.seek(int(size) + int(size) % 2, 1)  # members start at even bytes
    raise ValueError(f"{archive} is not a whole Debian package: it has no data.tar")


def _downloader(packages, names):
    """spec, folder -> the path of the file that `apt-get download` leaves in that folder; `names` are all that is needed."""
    by_hand = f"or fetch {names} from packages.debian.org by other means and `prepare` with --archives=FOLDER_OF_THEM"
    apt = shutil.which("apt-get")
    if apt is None:
        raise FileNotFoundError(f"apt-get was not found: it is part of Debian and Ubuntu; use one of these, {by_hand}")

    def download(spec, to):
        done = subprocess.run([apt, "download", spec], cwd=to, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        archive = to / packages[spec][0]
        if done.returncode or not archive.is_file():
            why = common.tail(done.stderr) or f"exit status {done.returncode}, no {archive.name}"
            raise RuntimeError(f"apt-get download {spec} failed; try `apt-get update` first, {by_hand}\n{why}")
        return archive

    return download
