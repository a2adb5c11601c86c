"""`tfds`: any data set of pictures that TensorFlow Datasets knows, such as "mnist" or "cifar10".

What a data set has decides where the captions come from:

    captions    coco_captions     as they are. In "train" each caption is an example; in the other
                                  splits only the first of each picture is
    a label     mnist, cifar10    the name of the class in `config.template`: "a photo of a frog"
    neither     lsun/bedroom      the name of the data set in the template: "a photo of a bedroom"

TFDS fetches and prepares the data on first use, under data_dir(); that needs a network once. If the
data set lacks a held-out split, the end of its training pictures is used, 5 % for each split.
"""

import contextlib
import difflib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.core.files import atomic_path, data_dir, fingerprint
from t2i_jax.core.threads import num_threads
from t2i_jax.data import pictures
from t2i_jax.data import template as templates

SPLITS = {  # and what TFDS calls them
    "train": ("train",),
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}
HELD_OUT_PERCENT = 5  # of "train", for each held-out split that is missing
# Names of a feature that is a caption, or holds captions as "text".
CAPTION_FEATURES = ("captions", "caption", "text")
# {where captions come from: augmentations that keep them true}.
AUGMENTATIONS = {
    "captions": ("noise",),
    "label": ("noise", "crop", "scale"),
    "name": ("noise", "crop", "scale"),
}


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for tfds."""
    del config
    return {
        "dataset": Field("cifar10", "the name of the data set in TFDS"),
        "resolution": Field(32, "pixels a side", 8, 1024),
        "template": Field(
            templates.DEFAULT, "the caption, with {} for the name of the class, if there is none"
        ),
        "augmentations": Field(
            (), 'more augmentations that keep the captions true, such as ("flip",)'
        ),
    }


def make(config, split: str) -> source.Source:
    """Return the pictures of the TFDS data set `config.dataset` at `config.resolution`.

    A picture is cut to its centred square and resized. `config.template` ("a photo of a {}") is for
    data without captions. Captions and labels are held in memory; pictures are read and decoded
    when they are asked for. Raises ValueError for an unknown data set or split, or one without
    pictures or captions. Raises FileNotFoundError if it is not prepared and TFDS cannot fetch it.
    """
    if split not in SPLITS:
        raise ValueError(f"tfds has no split {split!r}: it has {', '.join(SPLITS)}")
    builder = _prepared_builder(config.dataset)
    features: Any = builder.info.features
    image_key, kind, caption_key = find_features(features, config.dataset)
    part = tfds_split(split, list(builder.info.splits))
    written, labels, records = _read_captions(builder, part, image_key, kind, caption_key)
    if not records:
        raise ValueError(
            f"{part} of the TFDS data set {config.dataset!r} has no {kind}: its publishers keep "
            f"them back"
        )
    classes = ()
    template = getattr(config, "template", "") or templates.DEFAULT
    if kind == "captions":
        used = [
            i
            for i in range(len(records))
            if split == "train" or not i or records[i - 1] != records[i]
        ]
        captions, records = [written[i] for i in used], [records[i] for i in used]
    elif kind == "label":
        classes = tuple(name.replace("_", " ") for name in features[caption_key].names)
        class_captions = [templates.fill(template, name) for name in classes]
        captions = [class_captions[label] for label in labels]
    else:
        name = config.dataset.split(":")[0].split("/")[-1].replace("_", " ")
        caption = templates.fill(template, name) if "{}" in template else template
        captions = [caption] * len(records)
    declared = getattr(config, "augmentations", ())
    mark = fingerprint("tfds", builder.info.full_name, part, config.resolution, *captions)
    return source.Source(
        captions,
        _reader(builder, part, image_key, np.array(records), int(config.resolution)),
        mark,
        labels=labels,
        classes=classes,
        variants=dict.fromkeys((*AUGMENTATIONS[kind], *declared), captions),
    )


def find_features(features, name: str) -> tuple[str, str, str]:
    """Return (key of the picture, where captions come from, key of that) of TFDS features.

    name: of the data set, for error messages.
    Captions come from "captions", "label" or "name"; the key of "name" is "". Raises ValueError if
    there is no picture.
    """
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not images:
        raise ValueError(f"the TFDS data set {name!r} has no picture: it has {', '.join(features)}")
    if captions := [key for key in CAPTION_FEATURES if key in features]:
        return images[0], "captions", captions[0]
    labels = [
        key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)
    ]
    return (images[0], "label", labels[0]) if labels else (images[0], "name", "")


def tfds_split(split: str, existing: list[str]) -> str:
    """Return what to ask TFDS for: "test", "train[95%:]", ...

    existing: the splits that the data set has. Raises ValueError if "train" is not among them.
    """
    if "train" not in existing:
        raise ValueError(
            f"this data set has no split 'train' to learn from: it has {', '.join(existing)}"
        )
    found = {
        name: next(other for other in others if other in existing)
        for name, others in SPLITS.items()
        if set(others) & set(existing)
    }
    cut = [name for name in ("validation", "test") if name not in found]
    start = 100 - HELD_OUT_PERCENT * len(cut)
    if split in cut:
        start += HELD_OUT_PERCENT * cut.index(split)
        end = start + HELD_OUT_PERCENT
        return f"train[{start}%:{end}%]" if end < 100 else f"train[{start}%:]"
    return f"train[:{start}%]" if split == "train" and cut else found[split]


def _prepared_builder(name: str):
    """Return the builder of a data set that is on disk as ArrayRecord files."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.utils import gcs_utils

    # No probe of cloud storage: it is slow and loud without a network.
    gcs_utils._is_gcs_disabled = True
    options = {"data_dir": data_dir(), "file_format": "array_record"}
    try:
        builder = tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0], known, 3, 0.5)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(f"TFDS has no data set {name!r}{hint}") from None
    if not Path(builder.data_path).exists():
        print(f"TFDS fetches {name} into {builder.data_path}", flush=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
        except Exception as error:  # TFDS, its downloader and the builders raise many kinds
            raise FileNotFoundError(
                f"{name} is not prepared, and TFDS could not fetch it ({type(error).__name__}: "
                f"{str(error)[:300]}); with a network, run the same command again, or copy "
                f"{builder.data_path} from a machine that has one"
            ) from error
        builder = tfds.builder(name, **options)  # as it is on disk
    return builder


def _open_records(builder, part, image_key):
    """Return random access to the records of a part. Their pictures are still encoded."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(part, decoders={image_key: tfds.decode.SkipDecoding()})


def _read_captions(builder, part, image_key, kind, caption_key):
    """Return (captions, labels, the record that each belongs to) of a part of the data set.

    They are read once from the records, and kept in a file next to these.
    """
    path = Path(builder.data_path) / f"words-{fingerprint(part)[:16]}.json"
    if not path.is_file():
        records = _open_records(builder, part, image_key)
        captions, labels, places = [], [], []
        for index in range(len(records)):
            if kind == "name":
                places.append(index)
                continue
            value = records[index][caption_key]
            if kind == "captions":
                texts = value["text"] if isinstance(value, dict) else value
                texts = np.atleast_1d(np.asarray(texts, object))
                captions += [text.decode().strip() for text in texts]
                places += [index] * len(texts)
            elif value >= 0:  # -1 is a label that was not published
                labels.append(int(value))
                places.append(index)
        with atomic_path(path) as part_path:
            part_path.write_text(json.dumps([captions, labels, places]), encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _reader(builder, part, image_key, places, resolution):
    """Return `read` of a Source whose example i is the picture of the record places[i]."""
    records = _open_records(builder, part, image_key)
    pool = ThreadPoolExecutor(num_threads())

    def decode(record):
        return pictures.decode(record[image_key], resolution)

    def read(positions):
        found = records.__getitems__(places[np.asarray(positions, np.int64)].tolist())
        decoded = list(pool.map(decode, found))
        return np.array(decoded, np.uint8).reshape(-1, resolution, resolution, 3)

    return read
