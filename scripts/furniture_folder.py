"""Make a folder of captioned pictures of furniture, to try configs/folder.py on real pictures.

python scripts/furniture_folder.py --out=DIR

The pictures are 500 of the icons, 128 px, of the Debian package sweethome3d-furniture (120 MB; by
several authors, CC0, CC-BY and the Free Art License). 50 are in DIR/test, 450 in DIR/train. A
caption is the name and the other words that the catalogue has for it: "sofa, living room, couch".
"""

import argparse
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from t2i_jax.core.files import data_dir
from t2i_jax.download import debian

ARCHIVE = "sweethome3d-furniture_1.8-1_all.deb"
SHA256 = "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
PACKAGES = {"sweethome3d-furniture=1.8-1": (ARCHIVE, SHA256)}
CATALOGUE = "PluginFurnitureCatalog.properties"
ENTRY = re.compile(r"^(\w+)#(\d+)=(.*)$", re.MULTILINE)
LIBRARIES = ("blend swap", "scpts")  # tags that say where a piece is from
PICTURES, HELD_OUT = 500, 50


def pictures() -> Iterator[tuple[bytes, str]]:
    """Yield (PNG, caption) of each piece of furniture in the package."""
    folder = data_dir() / "downloads"
    debian.fetch(PACKAGES, folder)
    for name, content in debian.files(folder / ARCHIVE):
        if not name.endswith(".sh3f"):
            continue
        with zipfile.ZipFile(io.BytesIO(content)) as library:
            pieces: dict[str, dict[str, str]] = {}
            for field, number, value in ENTRY.findall(library.read(CATALOGUE).decode("latin-1")):
                pieces.setdefault(number, {})[field] = value.encode("latin-1").decode(
                    "unicode_escape"
                )
            for piece in pieces.values():
                yield library.read(piece["icon"].lstrip("/")), caption_of(piece)


def caption_of(piece: dict[str, str]) -> str:
    """Return the name, category and tags of a piece, each word group once."""
    words = [piece["name"], piece.get("category", ""), *piece.get("tags", "").split(",")]
    words = [word.strip().lower() for word in words]
    return ", ".join(dict.fromkeys(word for word in words if word and word not in LIBRARIES))


def main() -> None:
    """Write the pictures, each with its caption beside it, to the folders train and test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", required=True, type=Path)
    out = parser.parse_args().out
    found = {hashlib.sha256(picture).hexdigest(): (picture, said) for picture, said in pictures()}
    chosen = sorted(found)[:PICTURES]
    for split, names in {"test": chosen[:HELD_OUT], "train": chosen[HELD_OUT:]}.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            (out / split / f"{name[:16]}.png").write_bytes(found[name][0])
            (out / split / f"{name[:16]}.txt").write_text(found[name][1], encoding="utf-8")
    print(f"{len(chosen)} pictures in {out}")


if __name__ == "__main__":
    main()
