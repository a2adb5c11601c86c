"""Generated data sets: resumed, without equal pictures, and readable as a folder of pictures."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.data.load import load_source
from t2i_jax.data.provenance import read_metadata
from t2i_jax.runs.generated import generate_dataset

CAPTIONS = ["a red ring", "a blue star", "ein Fuchs"]


class Drawer:
    """Draws a flat picture whose level is that of its index; `repeats`: index modulo that."""

    weights = "w"
    config = ConfigDict({"data": {"resolution": 8}})
    family = SimpleNamespace(abilities={"sample": None})

    def __init__(self, repeats=10**6, calls=10**6):
        self.repeats, self.calls = repeats, calls

    def settings(self, given):
        return {"temperature": 1.0}

    def warn_if_cut(self, prompts):
        pass

    def draw_rows(self, captions, index, seed, count):
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        level = index // len(CAPTIONS) % self.repeats
        image = np.zeros((len(index), 8, 8, 3), np.uint8)
        image[..., 0], image[..., 1] = level[:, None, None] // 256, level[:, None, None] % 256
        return image


def generate(pipe, folder, **other):
    asked = {"captions": CAPTIONS, "num": 50, "seed": 3, **other}
    return generate_dataset(pipe, folder=folder, say=lambda line: None, **asked)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_interrupted_goes_on_to_the_same_files(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    made = generate(Drawer(), whole)
    assert made["drawn"] == 150 and made["left_out"] == 0 and made["weights"] == "w"
    with pytest.raises(KeyboardInterrupt):
        generate(Drawer(calls=2), parts)
    assert len(list(parts.glob("*.png"))) == 128
    with open(parts / "metadata.jsonl", "a") as table:  # as if it had been cut off while writing
        table.write(json.dumps({"file_name": "0000128.png", "text": "a", "index": 128}) + "\n{")
    assert generate(Drawer(calls=1), parts) == made
    assert files(parts) == files(whole)
    assert generate(Drawer(calls=0), parts) == made, "nothing is left to draw"


def test_a_folder_that_lost_rows_is_refused(tmp_path):
    generate(Drawer(), tmp_path / "a")
    table = tmp_path / "a/metadata.jsonl"
    lines = table.read_text(encoding="utf-8").splitlines(keepends=True)
    for damaged in (lines[:-1], [*lines[:70], "{\n", *lines[71:]]):
        table.write_text("".join(damaged), encoding="utf-8")
        with pytest.raises(ValueError, match=r"has (149|70) of the 150 rows"):
            generate(Drawer(), tmp_path / "a")
    table.unlink()
    with pytest.raises(ValueError, match="has 0 of the 150 rows"):
        generate(Drawer(), tmp_path / "a")


def test_a_folder_without_its_first_table_is_begun(tmp_path):
    """As if the command had been killed right after its first file."""
    made = generate(Drawer(), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        generate(Drawer(calls=0), tmp_path / "b")
    (tmp_path / "b/metadata.jsonl").unlink()
    assert generate(Drawer(), tmp_path / "b") == made
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_single_caption_is_not_taken_as_its_letters(tmp_path):
    made = generate(Drawer(), tmp_path / "a", captions="a red ring", num=2)
    assert made["drawn"] == 2
    assert read_metadata(tmp_path / "a/0000000.png")["prompt"] == "a red ring"


def test_equal_pictures_of_a_caption_are_left_out(tmp_path):
    """Every caption has ten different pictures; those of different captions may be equal."""
    made = generate(Drawer(repeats=10), tmp_path / "a")
    assert (made["drawn"], made["left_out"]) == (150, 120)
    table = (tmp_path / "a/metadata.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in table.splitlines()]
    assert len({(row["text"], row["sha256"]) for row in rows}) == len(rows) == 30
    assert len({row["sha256"] for row in rows}) == 10
    assert sorted(path.name for path in (tmp_path / "a").glob("*.png")) == [
        row["file_name"] for row in rows
    ]


def test_the_source_folder_reads_it_and_each_picture_says_how_it_was_drawn(tmp_path):
    generate(Drawer(), tmp_path / "a")
    config = ConfigDict({"name": "folder", "path": str(tmp_path / "a"), "resolution": 8})
    sources = [load_source(config, split) for split in ("train", "validation", "test")]
    assert sum(len(source.captions) for source in sources) == 150
    assert set(sources[0].captions) == set(CAPTIONS)
    told = read_metadata(tmp_path / "a/0000070.png")
    assert (told["prompt"], told["seed"]) == (CAPTIONS[70 % 3], 3)
    assert (told["index"], told["row"], told["batch"]) == (70, 6, 64)


def test_other_folders_and_other_settings_are_refused(tmp_path):
    generate(Drawer(), tmp_path / "a", num=1)
    with pytest.raises(ValueError, match="begun with other num and seed: name another folder"):
        generate(Drawer(), tmp_path / "a", num=2, seed=4)
    with pytest.raises(ValueError, match="begun with other captions"):
        generate(Drawer(), tmp_path / "a", num=1, captions=["a"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b/mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty, and this command did not begin it"):
        generate(Drawer(), tmp_path / "b")
    with pytest.raises(ValueError, match="nothing to draw"):
        generate(Drawer(), tmp_path / "c", captions=[])
    with pytest.raises(ValueError, match="num is 0"):
        generate(Drawer(), tmp_path / "c", num=0)
    blind = Drawer()
    blind.family = SimpleNamespace(abilities={"caption": None})
    with pytest.raises(ValueError, match="cannot 'sample'"):
        generate(blind, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    shutil.rmtree(tmp_path / "a")
