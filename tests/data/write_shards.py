"""Shards as other programs write them, for tests."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def encoded(value, form="png", side=10):
    """Return an encoded picture of one grey value (0..255)."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (value,) * 3).save(file, form)
    return file.getvalue()


def write_tar(path, members):
    """Write {name: bytes or text} as a tar file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def numbered(values, form="png"):
    """Return the members of one shard as img2dataset writes it: pictures, captions, notes."""
    members = {}
    for i in values:
        members[f"{i:09}.json"] = json.dumps({"caption": "not this one", "status": "success"})
        members[f"{i:09}.{form}"] = encoded(i, form)
        members[f"{i:09}.txt"] = f"number {i}"
    return members


def everything(make, config):
    """Return {caption: grey value of the first pixel} of all splits of a source."""
    found = {}
    for split in ("train", "validation", "test"):
        source = make(config, split)
        images = source.read(np.arange(len(source.captions)))
        pairs = zip(source.captions, images[:, 0, 0, 0].tolist(), strict=True)
        found |= {caption: value for caption, value in pairs}
    return found
