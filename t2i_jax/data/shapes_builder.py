"""The prepared data of `shapes`: a TFDS builder that writes ArrayRecord files.

A record is `image` uint8 [R, R, 3], `caption`, `kind` (index in KINDS), and `things` int16 [4, 5].
`things` has a row for each object: the indices in SIZES, COLOURS and SHAPES, then x and y in
1/UNITS of the canvas. Rows after the last object are -1. Importing this module imports TFDS.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from t2i_jax.core import source
from t2i_jax.core.files import data_dir, fingerprint
from t2i_jax.data import shapes
from t2i_jax.data.render import COLOURS, SHAPES, SIZES, draw

# No probe of cloud storage: it is slow and loud without a network.
gcs_utils._is_gcs_disabled = True
logging.getLogger("absl").addFilter(
    lambda record: "custom data configuration" not in record.getMessage()
)
MAX_OBJECTS = 4  # in a scene


@dataclasses.dataclass
class ShapesConfig(tfds.core.BuilderConfig):
    """The settings of the builder.

    resolution: pixels a side.
    scenes: number of scenes of every split; 0 for those of shapes.SPLITS.
    """

    resolution: int = 32
    scenes: int = 0


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Pictures of a few coloured shapes.

    A change of scenes, captions or rendering needs a new VERSION.
    """

    VERSION = tfds.core.Version("1.0.1")

    @property
    def settings(self) -> ShapesConfig:
        """The config of this builder."""
        return cast(ShapesConfig, self.builder_config)

    def _info(self):
        side, rows = self.settings.resolution, (MAX_OBJECTS, 5)
        # As bytes: without `encoding`, TFDS writes every number as a varint, at ten times the cost.
        features = {
            "image": tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes"),
            "caption": tfds.features.Text(),
            "kind": tfds.features.ClassLabel(names=list(shapes.KINDS)),
            "things": tfds.features.Tensor(shape=rows, dtype=np.int16, encoding="bytes"),
        }
        # Not shuffled, so that the index of a scene is the place of its record. The input pipeline
        # draws its own order.
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        scenes = self.settings.scenes
        return {
            split: self._generate_examples(split, scenes or full)
            for split, full in shapes.SPLITS.items()
        }

    def _generate_examples(self, split, count):
        captions = []
        for index in range(count):
            scene = shapes.scene(split, index)
            captions.append(scene.caption)
            example = {
                "image": draw(scene.objects, self.settings.resolution),
                "caption": scene.caption,
                "kind": scene.kind,
                "things": _to_rows(scene.objects),
            }
            yield index, example
        # Next to the records, so that captions can be had without reading these. `data_path` is
        # the folder that TFDS renames when all is written.
        path = Path(self.data_path) / f"captions-{split}.json"
        path.write_text(json.dumps(captions), encoding="utf-8")


def builder(resolution: int, scenes: int = 0) -> Shapes:
    """Return the builder of one resolution and number of scenes (0: the full ones).

    Its folder is under data_dir().
    """
    name = f"{resolution}px" + (f"_{scenes}" if scenes else "")
    config = ShapesConfig(name=name, resolution=resolution, scenes=scenes)
    return Shapes(config=config, data_dir=data_dir(), file_format="array_record")


def load(resolution: int, scenes: int, split: str) -> source.Source:
    """Return one split of `shapes`, prepared if need be. `read` is random access to the records."""
    prepared = builder(resolution, scenes)
    if not Path(prepared.data_path).exists():
        _prepare(prepared)
        prepared = builder(resolution, scenes)  # as it is on disk, whichever process wrote it
    path = Path(prepared.data_path) / f"captions-{split}.json"
    captions = json.loads(path.read_text(encoding="utf-8"))
    records = cast(Any, prepared).as_data_source(split)

    def read(positions):
        images = [
            record["image"] for record in records.__getitems__(np.asarray(positions).tolist())
        ]
        return np.array(images, np.uint8).reshape(-1, resolution, resolution, 3)

    mark = fingerprint("shapes", Shapes.VERSION, resolution, scenes, split, *captions)
    # No others: captions say colours and sizes, a rotation turns what is above, and a crop cuts
    # objects off. (Mirrored training scenes are not completely apart from the other splits: 14 of
    # the 2,000 of test are among them.)
    variants = {"flip": [shapes.mirrored(caption) for caption in captions], "noise": captions}
    return source.Source(captions, read, mark, variants=variants)


def _prepare(prepared):
    """Write all splits.

    TFDS writes next to the final folder and renames it, so that what is there is complete.
    """
    side, scenes = prepared.settings.resolution, prepared.settings.scenes
    count = sum(scenes or full for full in shapes.SPLITS.values())
    print(f"preparing shapes, {side} px: {count:,} scenes", end=" ", flush=True)
    start = time.monotonic()
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepared.download_and_prepare()
    except OSError:
        # If it is there now, another process was faster, with the same data.
        if not Path(prepared.data_path).exists():
            raise
    finally:
        print(f"({time.monotonic() - start:.1f} s)", flush=True)


def _to_rows(objects):
    """Return `things` of a record."""
    rows = np.full((MAX_OBJECTS, 5), -1, np.int16)
    tables = [list(SIZES), list(COLOURS), list(SHAPES)]
    for row, each in zip(rows, objects, strict=False):
        words = [table.index(word) for table, word in zip(tables, each[:3], strict=True)]
        row[:] = [*words, each.x, each.y]
    return rows
