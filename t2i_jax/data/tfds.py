"""`tfds`: any data set of pictures that TensorFlow Datasets knows by name, such as "mnist", "cifar10" or "lsun/bedroom".

Where a caption comes from, by what the data set has:

    captions    coco_captions          as they are; in "train" each is an example, elsewhere the first of a picture
    a label     mnist, cifar10         the name of the class in `config.template`: "a photo of a frog"
    neither     lsun/bedroom           the name of the data set there: "a photo of a bedroom"

TFDS fetches and prepares it on first use, under data_dir(); that needs a network once. A held-out split that the data set
lacks is the end of its training pictures, 5 % each.
"""

import contextlib
import difflib
import io
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from t2i_jax.data import pictures, source
from t2i_jax.data import template as templates

SPLITS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}  # and what TFDS calls them
HELD_OUT = 5  # percent of "train", for each held-out split that is missing
CAPTIONS = ("captions", "caption", "text")  # names of a feature that is, or holds as "text", what was written of a picture
UNCHANGED = {"captions": ("noise",), "label": ("noise", "crop", "scale"), "name": ("noise", "crop", "scale")}


def make(config, split: str) -> source.Source:
    """The pictures of the TFDS data set `config.dataset` at `config.resolution`, their middle square resized.

    `config.template` ("a photo of a {}") is for data without captions. Captions and labels are held in memory, pictures
    read and decoded as they are asked for. Raises ValueError for an unknown data set or split, or one without pictures
    or captions; FileNotFoundError if it is not prepared and TFDS cannot fetch it.
    """
    if split not in SPLITS:
        raise ValueError(f"tfds has no split {split!r}: it has {', '.join(SPLITS)}")
    builder = _prepared(config.dataset)
    image, kind, key = features_of(builder.info.features, config.dataset)
    part = part_of(split, list(builder.info.splits))
    said, labels, place = _words(builder, part, image, kind, key)
    if not place:
        raise ValueError(f"{part} of the TFDS data set {config.dataset!r} has no {kind}: its publishers keep them back")
    classes = tuple(name.replace("_", " ") for name in builder.info.features[key].names) if kind == "label" else ()
    template = getattr(config, "template", "") or templates.DEFAULT
    if kind == "captions":
        first = [i for i in range(len(place)) if split == "train" or not i or place[i - 1] != place[i]]
        captions, place = [said[i] for i in first], [place[i] for i in first]
    elif kind == "label":
        names = [templates.fill(template, name) for name in classes]
        captions = [names[label] for label in labels]
    else:
        last = config.dataset.split(":")[0].split("/")[-1].replace("_", " ")
        captions = [templates.fill(template, last) if "{}" in template else template] * len(place)
    declared = getattr(config, "augmentations", ())  # what the user knows besides: ("flip",)
    mark = source.fingerprint("tfds", builder.info.full_name, part, config.resolution, *captions)
    read = _reader(builder, part, image, np.array(place), int(config.resolution))
    return source.Source(captions, read, mark, (), labels, classes, dict.fromkeys((*UNCHANGED[kind], *declared), captions))


def features_of(features, name: str) -> tuple[str, str, str]:
    """(key of the picture, where captions come from: "captions", "label" or "name", key of that or "") of TFDS features.

    Raises ValueError if there is no picture.
    """
    import tensorflow_datasets as tfds

    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    if not images:
        raise ValueError(f"the TFDS data set {name!r} has no picture: it has {', '.join(features)}")
    if captions := [key for key in CAPTIONS if key in features]:
        return images[0], "captions", captions[0]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return (images[0], "label", labels[0]) if labels else (images[0], "name", "")


def part_of(split: str, there: list[str]) -> str:
    """The part of a TFDS data set with the splits `there` that is `split`, in TFDS's words: "test", "train[95%:]", ...

    Raises ValueError if there is no "train".
    """
    if "train" not in there:
        raise ValueError(f"this data set has no split 'train' to learn from: it has {', '.join(there)}")
    found = {name: next((other for other in others if other in there), None) for name, others in SPLITS.items()}
    cut = [name for name in ("validation", "test") if not found[name]]
    start = 100 - HELD_OUT * len(cut)
    if split in cut:
        start += HELD_OUT * cut.index(split)
        end = start + HELD_OUT
        return f"train[{start}%:{end}%]" if end < 100 else f"train[{start}%:]"
    return f"train[:{start}%]" if split == "train" and cut else found[split]


def _prepared(name: str):
    """The builder of a data set, which is on disk as ArrayRecord files."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow_datasets as tfds

    tfds.core.utils.gcs_utils._is_gcs_disabled = True  # no probe of cloud storage: it is slow and loud without a network
    options = {"data_dir": source.data_dir(), "file_format": "array_record"}
    try:
        builder = tfds.builder(name, **options)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(name.split("/")[0], tfds.list_builders(with_community_datasets=False), 3, 0.5)
        raise ValueError(f"TFDS has no data set {name!r}" + (f"; did you mean {' or '.join(near)}?" if near else "")) from None
    if not Path(builder.data_path).exists():
        print(f"TFDS fetches {name} into {builder.data_path}", flush=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare()
        except Exception as error:  # what TFDS, its downloader and the builders raise has no common kind
            raise FileNotFoundError(
                f"{name} is not prepared, and TFDS could not fetch it ({type(error).__name__}: {str(error)[:300]}); with a "
                f"network, run the same command again, or copy {builder.data_path} from a machine that has one"
            ) from error
        builder = tfds.builder(name, **options)  # as it is on disk
    return builder


def _records(builder, part, image):
    """Random access to the records of a part, the picture of each still encoded."""
    import tensorflow_datasets as tfds

    return builder.as_data_source(part, decoders={image: tfds.decode.SkipDecoding()})


def _words(builder, part, image, kind, key):
    """(captions, labels, which record each is of) of a part; read once from the records, then found again beside them."""
    kept = Path(builder.data_path) / f"words-{source.fingerprint(part)[:16]}.json"
    if not kept.is_file():
        records, said, labels, place = _records(builder, part, image), [], [], []
        for index in range(len(records)):
            record = records[index] if kind != "name" else None
            if kind == "captions":
                found = record[key]["text"] if isinstance(record[key], dict) else record[key]
                found = [text.decode().strip() for text in np.atleast_1d(np.asarray(found, object))]
                said += found
                place += [index] * len(found)
            elif kind == "name":
                place.append(index)
            elif record[key] >= 0:  # -1 is a label that was not published
                labels.append(int(record[key]))
                place.append(index)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="incomplete-") as folder:
            (Path(folder) / kept.name).write_text(json.dumps([said, labels, place]), encoding="utf-8")
            (Path(folder) / kept.name).replace(kept)  # it has its name only when it is whole
    return json.loads(kept.read_text(encoding="utf-8"))


def _reader(builder, part, image, place, resolution):
    """`read` of a Source whose example i is the picture of the record place[i]."""
    records, pool = _records(builder, part, image), ThreadPoolExecutor(min(8, os.cpu_count() or 1))

    def read(positions):
        found = records.__getitems__(place[np.asarray(positions, np.int64)].tolist())
        decoded = list(pool.map(lambda record: pictures.decode(record[image], resolution), found))
        return np.array(decoded, np.uint8).reshape(-1, resolution, resolution, 3)

    return read
