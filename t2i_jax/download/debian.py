"""Debian packages: fetched once with the user's own apt, verified by hash, read without dpkg.

A package is named by its spec, "NAME=VERSION". It is accepted only if it has the sha256 that the
caller knows (as on https://packages.debian.org/NAME, under "all"). It is not installed, and none of
its scripts is ever run.
"""

import io
import lzma
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from t2i_jax.download import archives as common

MAGIC = b"!<arch>\n"
HEADER_BYTES = 60  # name 16, time 12, owner 6, group 6, mode 8, size 10 (decimal), end 2
COMPRESSIONS = ("", ".gz", ".xz", ".bz2")  # those of dpkg that Python reads


def fetch(
    packages: common.Packages, folder: str | Path, archives: str | Path | None = None
) -> None:
    """Make sure that `folder` holds the right file of each package.

    packages: {spec: (file name, sha256 in hex)}.
    archives: a folder from which missing files are copied, or None for `apt-get download`.

    A file appears in `folder` only when it is complete and checked. Raises FileNotFoundError if
    archives or apt are missing, RuntimeError if apt fails, ValueError if a file has the wrong hash.
    """
    common.fetch(packages, Path(folder), archives, lambda names: _make_fetcher(packages, names))


def files(archive: str | Path, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the regular files that a .deb would install.

    prefix: only names ("usr/share/...") that start with it.
    Raises ValueError, saying why, if it is not a .deb that can be read.
    """
    name, data = _read_data(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                path = member.name.removeprefix("./")
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None and path.startswith(prefix):
                    yield path, file.read()
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError) as error:
        raise ValueError(f"{archive} is damaged: {name} in it cannot be read ({error})") from error


def _read_data(archive):
    """Return (name, content) of the data.tar of a .deb, which is an `ar` archive."""
    with open(archive, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(
                f"{archive} is not a Debian package: it does not start as an ar archive does"
            )
        while len(header := file.read(HEADER_BYTES)) == HEADER_BYTES:
            name = header[:16].decode("ascii", "replace").strip().rstrip("/")
            size = header[48:58].strip()
            if header[58:] != b"`\n" or not size.isdigit():
                start = file.tell() - HEADER_BYTES
                raise ValueError(f"{archive} is damaged: no header at byte {start:,}")
            if name.startswith("data.tar"):
                if (kind := name.removeprefix("data.tar")) not in COMPRESSIONS:
                    raise ValueError(
                        f"{archive} holds {name}: Python does not read {kind}, only "
                        f"{', '.join(COMPRESSIONS[1:])}"
                    )
                return name, file.read(int(size))
            file.seek(int(size) + int(size) % 2, 1)  # members start at even bytes
    raise ValueError(f"{archive} is not a whole Debian package: it has no data.tar")


def _make_fetcher(packages, names):
    """Return (spec, folder) -> path of the file that `apt-get download` puts there.

    names: the file names of all that is missing, for error messages.
    """
    by_hand = (
        f"or fetch {names} from packages.debian.org by other means and `prepare` with "
        f"--archives=FOLDER_OF_THEM"
    )
    apt = shutil.which("apt-get")
    if apt is None:
        raise FileNotFoundError(
            f"apt-get was not found: it is part of Debian and Ubuntu; use one of these, {by_hand}"
        )

    def download(spec, to):
        done = subprocess.run(
            [apt, "download", spec],
            cwd=to,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        archive = to / packages[spec][0]
        if done.returncode or not archive.is_file():
            why = common.last_lines(done.stderr)
            why = why or f"exit status {done.returncode}, no {archive.name}"
            raise RuntimeError(
                f"apt-get download {spec} failed; try `apt-get update` first, {by_hand}\n{why}"
            )
        return archive

    return download
