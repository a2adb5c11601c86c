"""The models that come with the project draw and caption as their cards say."""

import re

import numpy as np
from PIL import Image

import t2i_jax
from t2i_jax import cli
from t2i_jax.data.load import load_source
from t2i_jax.metrics import alignment
from t2i_jax.runs.run_folder import PUBLISHED

COUNT = 200


def test_shapes_is_as_good_as_its_card_says():
    pipe = t2i_jax.load("shapes")
    source = load_source(pipe.config.data, "test")
    captions = source.captions[:COUNT]
    drawn = pipe(captions, seed=1)
    report = alignment.score([np.asarray(image) for image in drawn.images], captions)
    said = (PUBLISHED / "shapes" / "README.md").read_text()
    strict = float(re.search(r"^strict +([\d.]+) %", said, re.MULTILINE)[1]) / 100
    assert strict > 0.9
    assert report["strict"]["value"] > strict - 3 * (strict * (1 - strict) / COUNT) ** 0.5


def test_it_draws_without_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["sample", "--prompt=a large red circle", "--num=1"])
    with Image.open("samples/000.png") as image:
        assert image.size == (32, 32)
    cli.main(["caption", "--image=samples/000.png"])
