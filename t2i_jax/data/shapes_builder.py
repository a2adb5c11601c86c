"""The prepared data of `shapes`: a TFDS builder that writes ArrayRecord files. Importing this imports TFDS.

A record is `image` uint8 [R, R, 3], `caption`, `kind` (a place in KINDS), and `things` int16 [4, 5]: a row a thing
(size, colour, shape as places in SIZES, COLOURS, SHAPES; x, y in 1/UNITS of the canvas), rows of -1 after the last.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds

from t2i_jax.data import shapes, source
from t2i_jax.data.render import COLOURS, SHAPES, SIZES, draw

tfds.core.utils.gcs_utils._is_gcs_disabled = True  # no probe of cloud storage: it is slow and loud without a network
logging.getLogger("absl").addFilter(lambda record: "custom data configuration" not in record.getMessage())
MOST = 4  # things in a scene


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """`scenes` is the number of scenes of every split; 0 means the numbers of shapes.SPLITS."""

    resolution: int = 32
    scenes: int = 0


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Pictures of a few coloured shapes. A change of scenes, captions or rendering needs a new VERSION."""

    VERSION = tfds.core.Version("1.0.1")

    def _info(self):
        side = self.builder_config.resolution
        features = {  # as bytes: without `encoding` TFDS writes every number as a varint, at ten times the cost
            "image": tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes"),
            "caption": tfds.features.Text(),
            "kind": tfds.features.ClassLabel(names=list(shapes.KINDS)),
            "things": tfds.features.Tensor(shape=(MOST, 5), dtype=np.int16, encoding="bytes"),
        }
        # not shuffled: the pipeline draws its own order, and so the index of a scene is the place of its record
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        del dl_manager
        scenes = self.builder_config.scenes
        return {split: self._generate_examples(split, scenes or full) for split, full in shapes.SPLITS.items()}

    def _generate_examples(self, split, count):
        captions = []
        for index in range(count):
            scene = shapes.scene(split, index)
            captions.append(scene.caption)
            image = draw(scene.things, self.builder_config.resolution)
            yield index, {"image": image, "caption": scene.caption, "kind": scene.kind, "things": _rows(scene.things)}
        # beside the records, to be had without reading them; data_path is the one that is renamed when all is written
        (Path(self.data_path) / f"captions-{split}.json").write_text(json.dumps(captions), encoding="utf-8")


def builder(resolution: int, scenes: int = 0) -> Shapes:
    """The builder of one resolution and number of scenes (0: the full ones), its directory under source.data_dir()."""
    name = f"{resolution}px" + (f"_{scenes}" if scenes else "")
    config = ShapesConfig(name=name, resolution=resolution, scenes=scenes)
    return Shapes(config=config, data_dir=source.data_dir(), file_format="array_record")


def load(resolution: int, scenes: int, split: str) -> source.Source:
    """One split of `shapes`, prepared if need be; `read` is random access to the records."""
    prepared = builder(resolution, scenes)
    if not Path(prepared.data_path).exists():
        _prepare(prepared)
        prepared = builder(resolution, scenes)  # as it is on disk, whoever wrote it
    captions = json.loads((Path(prepared.data_path) / f"captions-{split}.json").read_text(encoding="utf-8"))
    records = prepared.as_data_source(split)

    def read(positions):
        images = [record["image"] for record in records.__getitems__(np.asarray(positions).tolist())]
        return np.array(images, np.uint8).reshape(-1, resolution, resolution, 3)

    mark = source.fingerprint("shapes", Shapes.VERSION, resolution, scenes, split, *captions)
    # No others: captions say colours and sizes, a rotation turns what is above, and a crop cuts things off. (Mirrored, the
    # training scenes are no longer wholly apart from the others: 14 of the 2,000 of test are among them.)
    variants = {"flip": [shapes.mirrored(said) for said in captions], "noise": captions}
    return source.Source(captions, read, mark, variants=variants)


def _prepare(prepared):
    """Writes all splits. TFDS writes beside the final directory and renames it, so what is there is whole."""
    count = sum(prepared.builder_config.scenes or full for full in shapes.SPLITS.values())
    print(f"preparing shapes, {prepared.builder_config.resolution} px: {count:,} scenes", end=" ", flush=True)
    start = time.monotonic()
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepared.download_and_prepare()
    except OSError:
        if not Path(prepared.data_path).exists():  # if it is there, another process was quicker: its data are the same
            raise
    finally:
        print(f"({time.monotonic() - start:.1f} s)", flush=True)


def _rows(things):
    rows = np.full((MOST, 5), -1, np.int16)
    tables = [list(SIZES), list(COLOURS), list(SHAPES)]
    for row, thing in zip(rows, things, strict=False):
        row[:] = [table.index(word) for table, word in zip(tables, thing[:3], strict=True)] + [thing.x, thing.y]
    return rows
