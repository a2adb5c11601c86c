"""`fashion_mnist`: 70,000 grey pictures of clothes in ten classes, 28 x 28 px (arXiv 1708.07747).

    "a photo of a sneaker"

It comes from a Debian package. The last 5,000 of the 60,000 training pictures are "validation";
"test" is as published. At 32 px the picture is not enlarged, but framed in black, the colour of its
background. A picture has one caption: its class, in `config.template`.
"""

import gzip
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.data import template as templates
from t2i_jax.download import debian

SPEC = "dataset-fashion-mnist=0.0~git20200523.55506a9-1"
LICENCE = "MIT, Zalando SE"
PACKAGES = {
    SPEC: (
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    )
}
FOLDER = "usr/share/datasets/fashion-mnist/"  # in the package
ARRAYS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

SIDE, RESOLUTIONS = 28, (28, 32)  # pixels
NUM_VALIDATION = 5_000
SPLITS = {  # files, and which of their pictures
    "train": ("train", slice(None, -NUM_VALIDATION)),
    "validation": ("train", slice(-NUM_VALIDATION, None)),
    "test": ("t10k", slice(None)),
}
# A sneaker remains one under all of them.
AUGMENTATIONS = ("flip", "rotation", "scale", "crop", "colour", "noise")


def prepare(config, archives: str | None = None) -> None:
    """Fetch the package and unpack its four arrays. Prints where they are.

    archives: a folder that holds the .deb, fetched by other means, or None for apt.

    If it is interrupted, it leaves nothing that looks complete.
    """
    if not _home().exists():
        downloads = data_dir() / "downloads"
        debian.fetch(PACKAGES, downloads, archives)
        _unpack(downloads / PACKAGES[SPEC][0])
    print(f"fashion_mnist: in {_home()}; licence: {LICENCE}", flush=True)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for fashion_mnist."""
    del config
    return {
        "resolution": Field(32, "pixels a side; 32 is 28 framed in black", choices=RESOLUTIONS),
        "template": Field(templates.DEFAULT, "the caption, with {} for the name of the class"),
        "negative": Field(False, "whether pictures are negatives: dark clothes on white"),
    }


def make(config, split: str) -> source.Source:
    """Return the `fashion_mnist` source at `config.resolution`, with captions by `config.template`.

    Fetches the package on first use. A split is held in memory, in one channel (43 MB for "train").
    Raises ValueError for an unknown split or resolution, or a template without {}; and what
    `debian.fetch` raises, with what would help.
    """
    side, template = config.resolution, getattr(config, "template", "") or templates.DEFAULT
    negative = getattr(config, "negative", False)
    if split not in SPLITS:
        raise ValueError(f"fashion_mnist has no split {split!r}: it has {', '.join(SPLITS)}")
    if side not in RESOLUTIONS:
        raise ValueError(
            f"fashion_mnist has no resolution {side!r}: it has 28, and 32 (28 framed in black)"
        )
    class_captions = [templates.fill(template, name) for name in CLASSES]
    if not _home().exists():
        prepare(config)
    file, part = SPLITS[split]
    images, labels = (
        np.load(_home() / f"{file}-{kind}.npy")[part]
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    margin = (side - SIDE) // 2

    def read(positions):
        grey = np.pad(images[positions], ((0, 0), (margin, margin), (margin, margin)))
        grey = 255 - grey if negative else grey
        return np.repeat(grey[..., None], 3, axis=-1)

    captions = [class_captions[label] for label in labels]
    changed = ("negative",) if negative else ()
    mark = fingerprint("fashion_mnist", PACKAGES[SPEC][1], split, side, *changed, *class_captions)
    return source.Source(
        captions,
        read,
        mark,
        labels=labels.tolist(),
        classes=CLASSES,
        variants=dict.fromkeys(AUGMENTATIONS, captions),
    )


def read_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """Return the array in an IDX file of bytes.

    Such a file holds: zero, zero, 8 (for uint8), the number of axes, each length (big-endian), the
    numbers. Raises ValueError if it is not one.
    """
    start = 4 + 4 * content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = np.frombuffer(content[4:start], ">u4")
    if not start or len(content) != start + np.prod(shape, dtype=np.int64):
        raise ValueError("not an IDX file of bytes, or not whole")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _home():
    return data_dir() / "fashion_mnist"


def _unpack(archive: Path) -> None:
    """Write the arrays of the package as .npy files."""
    with atomic_path(_home()) as folder:
        folder.mkdir()
        found = {
            name.removeprefix(FOLDER): content for name, content in debian.files(archive, FOLDER)
        }
        for name in ARRAYS:
            if f"{name}.gz" not in found:
                raise ValueError(f"{archive} has no {FOLDER}{name}.gz")
            np.save(folder / f"{name}.npy", read_idx(gzip.decompress(found[f"{name}.gz"])))
