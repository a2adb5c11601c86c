"""Own pictures: too few, too alike, damaged, changed since training; and what is said of them."""

import jax
import numpy as np
import pytest
from PIL import Image

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.data.load import load_source
from t2i_jax.evaluation.evaluate import warn_of_other_data
from t2i_jax.models.patch_codebook import fit
from t2i_jax.runs.run_folder import read_variables
from tests.bad_input.command import OVERRIDES, SHAPES, Row, check_row, nothing, run_command, write
from tests.bad_input.conftest import make_run
from tests.conftest import ROOT

SMOKE = f"{ROOT}/configs/folder.py:smoke"
TRAIN = (
    f"train --config={SMOKE} --config.data.path={{place}}/own "
    "--workdir={place}/run --config.evaluate.num=2 --config.train.steps=4"
)
CODES = f"{TRAIN.replace(':smoke', ':codes_smoke')} --config.image_tokenizer.codes="


@pytest.fixture
def place(tmp_path):
    """A folder in which pictures can be put."""
    (tmp_path / "own").mkdir()
    return tmp_path


def pictures(count, empty=0, alike=False):
    """Return a damage: that many pictures in own/, of which the first captions are empty."""

    def make(place):
        rng = np.random.default_rng(0)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3)) if not alike else np.full((40, 40, 3), i % 5)
            Image.fromarray(pixels.astype(np.uint8)).save(place / "own" / f"{i}.png")
            (place / "own" / f"{i}.txt").write_text("" if i < empty else f"picture {i}")

    return make


def table(name, content):
    """Return a damage: three pictures, and one captions file in place of the captions."""

    def make(place):
        pictures(3)(place)
        for path in (place / "own").glob("*.txt"):
            path.unlink()
        write(f"own/{name}", content)(place)

    return make


def after(first, then):
    """Return both damages."""
    return lambda place: (first(place), then(place))


LINE = '{"file_name": "0.png", "text": "a"}\n'
SIZE = TRAIN + r" --config.data.sizes=(\'{}\',)"
ROWS = [
    Row("no pictures", pictures(0), TRAIN, "own has no pictures .png"),
    Row("1 picture", pictures(1), TRAIN, "own no examples 'validation' at least 3 validation/"),
    Row("2 pictures", pictures(2), TRAIN, "own no examples 'validation' at least 3 validation/"),
    Row("codes > patches", pictures(40), CODES + "2048", "image_tokenizer.codes 2048 1024 or less"),
    Row("alike", pictures(40, alike=True), CODES + "2048", "image_tokenizer.codes 2048 5 or less"),
    Row(
        "a file",
        lambda place: (place / "own").rmdir() or write("own", "x")(place),
        TRAIN,
        "no folder own config.data.path",
    ),
    Row(
        "a link loop",
        lambda place: (place / "own").rmdir() or (place / "own").symlink_to("own"),
        TRAIN,
        "no folder own config.data.path",
    ),
    Row("nowhere", lambda place: (place / "own").rmdir(), TRAIN, "no folder own config.data.path"),
    Row("no path", pictures(3), TRAIN.replace("{place}/own", "''"), "config.data.path"),
    Row("no captions", table("x.md", ""), TRAIN, "own no captions NAME.txt metadata.jsonl"),
    Row(
        "line not JSON",
        table("metadata.jsonl", LINE + "{x\n"),
        TRAIN,
        "metadata.jsonl, line 2: not JSON",
    ),
    Row(
        "line a list",
        table("metadata.jsonl", LINE + "[1]\n"),
        TRAIN,
        "metadata.jsonl, line 2: file_name text",
    ),
    Row(
        "caption a number",
        table("metadata.jsonl", '{"file_name": "0.png", "text": 3}'),
        TRAIN,
        "metadata.jsonl, line 1: text 3",
    ),
    Row(
        "no caption in a line",
        table("metadata.jsonl", '{"file_name": "0.png"}'),
        TRAIN,
        "metadata.jsonl, line 1: text caption",
    ),
    Row("not UTF-8", table("metadata.jsonl", b"\xff\xfe"), TRAIN, "metadata.jsonl, line 1: UTF-8"),
    Row("empty table", table("metadata.jsonl", ""), TRAIN, "own no captions NAME.txt"),
    Row(
        "a short row",
        table("metadata.csv", "file_name,text\n0.png\n"),
        TRAIN,
        "metadata.csv, line 2: 2 columns",
    ),
    Row(
        "outside",
        table("metadata.jsonl", LINE.replace("0.png", "../x.png")),
        TRAIN,
        "own ../x.png max_skipped skipped.txt",
    ),
    Row(
        "two tables",
        after(table("metadata.jsonl", LINE), write("own/metadata.csv", "a,b\n")),
        TRAIN,
        "metadata.jsonl metadata.csv one captions file",
    ),
    Row(
        "a broken link",
        after(pictures(3), lambda place: (place / "own" / "d.png").symlink_to("x")),
        TRAIN,
        "d.png max_skipped",
    ),
    Row(
        "half are text",
        after(pictures(4), lambda place: [write(f"own/{i}.png", "hello")(place) for i in (0, 1)]),
        TRAIN,
        "0.png format max_skipped",
    ),
    Row("a wrong size", pictures(40), SIZE.replace("{}", "32"), "data.sizes 32 width x height"),
    Row("sizes", pictures(40), SIZE.replace("{}", "32x16"), "data.sizes diffusion one size"),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_folder_that_cannot_be_trained_on(row, place):
    check_row(row, place)
    assert not (place / "run" / "run.json").exists()


def test_the_number_of_codes_that_the_message_names_works():
    images = np.random.default_rng(0).integers(0, 3, (4, 16, 16, 3)).astype(np.uint8) // 2
    with pytest.raises(ValueError, match="set it to 16 or less"):
        fit(images, patch=8, codes=17)
    fit(images, patch=8, codes=16)


def test_what_is_said_of_forty_pictures(place):
    """Of how few pictures validation has, and of empty captions."""
    pictures(40, empty=5)(place)
    config = configs.load(SMOKE, [f"data.path={place}/own"])
    said = "\n".join(load_source(config.data, "train").notes)
    held_out = load_source(config.data, "validation")
    assert "captions in train are empty: these examples are unconditional" in said
    assert len(held_out.captions) < 10
    assert held_out.notes[-1].startswith(f"validation has {len(held_out.captions)} of 40 examples")


def test_captions_that_changed_since_training_are_told(place, recwarn, no_score):
    """Evaluate warns, unless other data was asked for; training goes on with nothing else."""
    pictures(40)(place)
    overrides = [*OVERRIDES, "data.name=folder", f"data.path={place}/own"]
    make_run(configs.load(SHAPES, overrides), place / "run")
    pipe = pipeline.load(place / "run")
    recwarn.clear()
    warn_of_other_data(pipe, place / "run")
    assert not recwarn.list
    (place / "own" / "7.txt").write_text("another caption")
    with pytest.warns(UserWarning, match="run is not what it was in training .*captions") as told:
        ended = run_command("evaluate --workdir={place}/run", place=place)
    assert ended.code == 0 and len([w for w in told if "what it was" in str(w.message)]) == 1
    (place / "other").mkdir()
    recwarn.clear()
    other = pipeline.load(place / "run", overrides=[f"data.path={place}/other"])
    warn_of_other_data(other, place / "run")
    assert not recwarn.list
    train = f"train --config={SHAPES} --workdir={{place}}/run " + " ".join(
        f"--config.{override}" for override in overrides
    )
    check_row(Row("", nothing, train, "run holds another run training data --workdir"), place)


def test_a_run_is_fine_tuned_on_a_folder_by_one_command(place, trained):
    """The command in README.md: the run starts from the weights and frozen parts of the other."""
    pictures(40)(place)
    origin = trained / "run"
    words = [f"init_from={origin}", "data.name=folder", f"data.path={place}/own"]
    make_run(configs.load(SHAPES, [*OVERRIDES, *words]), place / "run")
    before, after = read_variables(origin), read_variables(place / "run")
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    jax.tree.map(np.testing.assert_array_equal, before.frozen, after.frozen)
    config = pipeline.load(place / "run").config
    assert config.data.name == "folder" and config.data.resolution == 32
    assert "scenes" not in config.data


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("init_from={place}/nowhere", "nowhere not a run folder"),
        ("image_tokenizer.codes=16", "init_from: config.image_tokenizer.codes is 16 with 64"),
        ("model.depth=1", "init_from run do not fit this model"),
        ("data.scenes=3", "unknown config key 'data.scenes' resolution"),
    ],
)
def test_a_run_that_cannot_be_fine_tuned_so(override, words, place, trained):
    origin = "" if override.startswith("init_from") else f"--config.init_from={trained}/run "
    command = (
        f"train --config={SHAPES} --workdir={{place}}/run {origin}"
        f"--config.data.name=folder --config.data.path={{place}}/own --config.{override}"
    )
    check_row(Row("", pictures(40), command, words), place)
