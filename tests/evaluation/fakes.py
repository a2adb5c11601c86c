"""Models and extractors whose scores are known, for the tests of this folder."""

from types import SimpleNamespace

import numpy as np
from ml_collections import ConfigDict

from t2i_jax.data.load import load_source
from t2i_jax.features.extractor import Extractor
from t2i_jax.text import tokenizer as tokenizers

COUNT = 24  # captions of a trial


def use_sources(monkeypatch, find):
    """Let every call of `load_source(config, split)` return `find(config, split)`."""
    monkeypatch.setattr("t2i_jax.data.load.lookup", lambda folder, name: find)


def cell_means(weights, images):
    """The mean colour of each of 16 cells: uint8 [B, 32, 32, 3] -> [B, 48]."""
    cells = images.reshape(-1, 4, 8, 4, 8, 3).astype(np.float32).mean((2, 4)) / 255
    return {"features": cells.reshape(len(images), -1), "maps": [cells]}


CELLS = Extractor("Cells", "none", {}, cell_means)
COLOURS = Extractor(
    "Colours", "none", {}, lambda weights, x: {"features": x.astype(np.float32).mean((1, 2))}
)


def family_of(abilities):
    """A family with these abilities and nothing else."""
    return type("Family", (), {"settings": {"sample": {}}, "abilities": abilities})


def distinct(source):
    """The positions of the first captions that are all different."""
    return sorted(np.unique(source.captions[: 2 * COUNT], return_index=True)[1])[:COUNT]


class Painter:
    """Knows the captions of `distinct` by heart and draws their true pictures.

    always_the_same: draws the first picture for every caption instead.
    """

    weights = "w"

    def __init__(self, config, always_the_same=False):
        self.config, self.test = config, load_source(config.data, "test")
        self.index = (
            {} if always_the_same else {self.test.captions[i]: i for i in distinct(self.test)}
        )
        self.family = family_of(
            {"reconstruct": lambda variables, inputs, rng: inputs["image"] // 2 * 2}
        )
        self.variables = {}
        self.tokenizer = tokenizers.train(self.test.captions, 300)

    def warn_if_cut(self, prompts):
        """Warn of nothing: it knows all captions whole."""

    def draw_rows(self, captions, index, seed):
        return self.test.read(np.array([self.index.get(caption, 0) for caption in captions]))


class TruePipeline:
    """Draws the true pictures of the test split: a model without error.

    shift: draws those of other captions instead.
    """

    weights = "w"

    def warn_if_cut(self, prompts):
        """Warn of nothing: it knows all captions whole."""

    def __init__(self, config, shift=0):
        self.config, self.shift = config, shift
        self.pictures = load_source(config.data, "test")
        self.family = family_of({"sample": None})

    def draw_rows(self, captions, index, seed):
        assert len(captions) in (self.config.evaluate.batch, 1 << (len(captions) - 1).bit_length())
        return self.pictures.read((index + self.shift) % 16)


class Captioner(TruePipeline):
    """Gives the true captions, except for the first picture, and draws nothing."""

    def __init__(self, config):
        super().__init__(config)
        self.family = family_of({"caption": None})

    def caption(self, images, **settings):
        return ["a large red circle and more", *self.pictures.captions[1 : len(images)]]


class Enlarger(TruePipeline):
    """Enlarges pictures twice, by repeating pixels."""

    def __init__(self, config):
        super().__init__(config)
        self.variables = {}
        self.config = SimpleNamespace(evaluate=config.evaluate, superresolution=TWICE)
        self.family = family_of({"upscale": repeat_pixels})


class Translator(TruePipeline):
    """Makes pictures lighter by 40 levels, and backward darker."""

    def __init__(self, config):
        super().__init__(config)
        self.variables = {}
        self.family = family_of({"translate": shift_levels})


def shift_levels(variables, inputs, keys, direction="forward"):
    return inputs["image"] + np.uint8(40 if direction == "forward" else 216)


TWICE = ConfigDict({"scale": 2, "blur": 0.0, "noise": 0.0})


def repeat_pixels(variables, inputs, keys):
    return inputs["image"].repeat(2, axis=1).repeat(2, axis=2)
