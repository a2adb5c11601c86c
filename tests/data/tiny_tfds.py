"""Tiny TFDS data sets: with labels, with captions, and with pictures alone.

Importing this module imports TFDS.
"""

import numpy as np
import tensorflow_datasets as tfds

CLASSES = ("owl", "red_fox", "ant")


def picture(index, channels=3):
    """Return a picture that identifies its index: uint8 [8, 12, channels]."""
    return np.random.default_rng(index).integers(0, 256, (8, 12, channels)).astype(np.uint8)


class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    SKIP_REGISTERING = True
    counts = {"train": 40}  # noqa: RUF012

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(self.features()), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {
            split: ((i, self.example(i)) for i in range(count))
            for split, count in self.counts.items()
        }

    _generate_examples = None


class TinyLabels(Tiny):
    """Grey pictures of classes; train and test."""

    counts = {"train": 40, "test": 4}  # noqa: RUF012

    def features(self):
        return {
            "image": tfds.features.Image(shape=(8, 12, 1)),
            "label": tfds.features.ClassLabel(names=list(CLASSES)),
        }

    def example(self, i):
        return {"image": picture(i, 1), "label": i % 3}


class TinyKeptBack(TinyLabels):
    """Every second label was not published, beginning with the first."""

    counts = {"train": 40, "test": 1}  # noqa: RUF012

    def example(self, i):
        return {"image": picture(i, 1), "label": i % 3 if i % 2 else -1}


class TinyCaptions(Tiny):
    """Pictures with zero, one or two captions, and objects, like coco_captions; train and val."""

    counts = {"train": 40, "val": 6}  # noqa: RUF012

    def features(self):
        objects = tfds.features.Sequence({"label": tfds.features.ClassLabel(num_classes=5)})
        captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
        return {"image": tfds.features.Image(), "captions": captions, "objects": objects}

    def example(self, i):
        captions = [{"id": 9, "text": f"picture {i}, caption {n} "} for n in range(i % 3)]
        return {"image": picture(i), "captions": captions, "objects": [{"label": 0}] * (i % 2)}


class TinyPictures(Tiny):
    """Pictures only, train only, in two configs."""

    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("old_barn", "sea")]  # noqa: RUF012

    def features(self):
        return {"id": tfds.features.Scalar(np.int64), "image": tfds.features.Image()}

    def example(self, i):
        return {"id": i, "image": picture(i)}
