"""`fashion_mnist`: 70,000 grey pictures of clothes in ten classes, 28 x 28 px (arXiv 1708.07747), from Debian's own copy.

    "a photo of a sneaker"

The last 5,000 of the 60,000 training pictures are "validation"; "test" is as published. At 32 px the picture is framed in
black, its ground, and not enlarged. A picture has one caption, its class in `config.template`.
"""

import gzip
import tempfile
from pathlib import Path

import numpy as np

from t2i_jax.data import debian, source
from t2i_jax.data import template as templates

SPEC = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"  # MIT licence, Zalando SE
PACKAGES = {
    SPEC: (
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    )
}
FOLDER = "usr/share/datasets/fashion-mnist/"
ARRAYS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

SIDE, RESOLUTIONS = 28, (28, 32)
VALIDATION = 5_000
SPLITS = {  # files, and which of their pictures
    "train": ("train", slice(None, -VALIDATION)),
    "validation": ("train", slice(-VALIDATION, None)),
    "test": ("t10k", slice(None)),
}
VARIANTS = ("flip", "rotation", "scale", "crop", "colour", "noise")  # a sneaker stays one under all of them


def prepare(config, archives: str | None = None) -> None:
    """Fetches the package (`t2i_jax/data/debian.py`) and unpacks its four arrays; says where they are.

    `archives` is a folder that holds the .deb, fetched by other means. Interrupted, it leaves nothing that is taken as whole.
    """
    if not _home().exists():
        downloads = source.data_dir() / "downloads"
        debian.fetch(PACKAGES, downloads, archives)
        _unpack(downloads / PACKAGES[SPEC][0])
    print(f"fashion_mnist: in {_home()}; MIT licence, Zalando SE", flush=True)


def make(config, split: str) -> source.Source:
    """The `fashion_mnist` source at `config.resolution` (28 or 32), captions by `config.template` ("a photo of a {}").

    Fetches itself on first use. All of a split is held in memory, in one channel (43 MB for "train"). Raises ValueError for
    an unknown split or resolution, or a template without {}; and what debian.fetch raises, saying what would help.
    """
    side, template = config.resolution, getattr(config, "template", "") or templates.DEFAULT
    if split not in SPLITS:
        raise ValueError(f"fashion_mnist has no split {split!r}: it has {', '.join(SPLITS)}")
    if side not in RESOLUTIONS:
        raise ValueError(f"fashion_mnist has no resolution {side!r}: it has 28, and 32 (28 framed in black)")
    said = [templates.fill(template, name) for name in CLASSES]
    if not _home().exists():
        prepare(config)
    file, part = SPLITS[split]
    images, labels = (np.load(_home() / f"{file}-{kind}.npy")[part] for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    margin = (side - SIDE) // 2

    def read(positions):
        grey = np.pad(images[positions], ((0, 0), (margin, margin), (margin, margin)))
        return np.repeat(grey[..., None], 3, axis=-1)

    captions = [said[label] for label in labels]
    mark = source.fingerprint("fashion_mnist", PACKAGES[SPEC][1], split, side, *said)
    return source.Source(captions, read, mark, (), labels.tolist(), CLASSES, dict.fromkeys(VARIANTS, captions))


def read_idx(content: bytes) -> np.ndarray:
    """The array of an IDX file of bytes: zero, zero, 8 (uint8), the number of axes, each length (big-endian), the numbers.

    Raises ValueError if it is not one.
    """
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4:start], ">u4")
    if not start or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError("not an IDX file of bytes, or not whole")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _home():
    return source.data_dir() / "fashion_mnist"


def _unpack(archive: Path) -> None:
    """Writes the arrays of the package as .npy files."""
    _home().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_home().parent, prefix="incomplete-") as temporary:
        folder = Path(temporary) / "arrays"
        folder.mkdir()
        found = {name.removeprefix(FOLDER): content for name, content in debian.files(archive, FOLDER)}
        for name in ARRAYS:
            if f"{name}.gz" not in found:
                raise ValueError(f"{archive} has no {FOLDER}{name}.gz")
            np.save(folder / f"{name}.npy", read_idx(gzip.decompress(found[f"{name}.gz"])))
        try:
            folder.rename(_home())  # it has its name only when it is whole
        except OSError:
            if not _home().exists():  # if it is there, another process was quicker: its data are the same
                raise
