"""The comparison of classifiers with and without generated pictures (scripts/)."""

import json
import shutil

import numpy as np

from scripts import few_real_pictures
from t2i_jax.core.source import Source
from tests.evaluation.fakes import use_sources

CLASSES = ("row", "column")


def bars(config, split):
    """The source of noisy pictures of 8 px with a bright row or column; splits differ."""
    rng = np.random.default_rng(["train", "validation", "test"].index(split))
    labels = rng.integers(0, 2, 300)
    images = rng.integers(0, 60, (300, 8, 8, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[(slice(None), 4) if label else 4] = 200
    captions = [f"a {CLASSES[label]}" for label in labels]
    return Source(captions, images.__getitem__, split, labels=labels.tolist(), classes=CLASSES)


def test_what_is_written_and_compared(tmp_path, monkeypatch):
    use_sources(monkeypatch, bars)
    monkeypatch.setattr(few_real_pictures, "SEEDS", range(1))
    monkeypatch.setattr(few_real_pictures, "PICTURES_SEEN", 1024)
    few_real_pictures.write(str(tmp_path / "few"))
    assert (tmp_path / "few/prompts.txt").read_text() == "a column\na row\n"
    images, labels = few_real_pictures.labelled(tmp_path / "few/train", bars(None, "test"))
    assert np.bincount(labels).tolist() == [100, 100]
    training = bars(None, "train")
    for row, image in zip((tmp_path / "few/train/metadata.jsonl").open(), images, strict=True):
        place = int(json.loads(row)["file_name"].split(".")[0])
        np.testing.assert_array_equal(image, training.read(place))
    for part in ("validation", "test"):
        assert len(list((tmp_path / "few" / part).glob("*.png"))) == 20
    # Generated pictures with wrong captions: they spoil what the real ones teach.
    shutil.copytree(tmp_path / "few/train", tmp_path / "made")
    table = tmp_path / "made/metadata.jsonl"
    wrong = {"a row": "a column", "a column": "a row"}
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    rows = [{**row, "text": wrong[row["text"]]} for row in rows]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = few_real_pictures.compare(str(tmp_path / "few"), str(tmp_path / "made"))
    assert report["real"]["value"] > 0.98 and report["generated"]["value"] < 0.02
    assert report["gain"]["high"] < -0.1 and report["real"]["n"] == 300
    assert report["gain"]["value"] == report["both"]["value"] - report["real"]["value"]
