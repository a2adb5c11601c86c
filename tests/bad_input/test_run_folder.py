"""Run folders whose files are missing, damaged, edited, or of another run."""

import json
import shutil

import jax
import numpy as np
import pytest

from t2i_jax.core.state import TrainState
from t2i_jax.runs import checkpoint
from t2i_jax.runs.frozen import save_frozen
from tests.bad_input.command import (
    OVERRIDES,
    SHAPES,
    Row,
    check_row,
    full_disk,
    nothing,
    run_command,
    snapshot,
    write,
)

SAMPLE = "sample --workdir={place}/run --prompt=red --num=1 --out={place}/out"
EVALUATE = "evaluate --workdir={place}/run --measure=alignment"
TRAIN = f"train --config={SHAPES} --workdir={{place}}/run " + " ".join(
    f"--config.{override}" for override in OVERRIDES
)


def change_bytes(pattern, change):
    """Return a damage: `change` (bytes -> bytes) of each file that matches."""

    def damage(place):
        files = [path for path in place.glob(pattern) if path.is_file()]
        assert files
        for path in files:
            path.write_bytes(change(path.read_bytes()))

    return damage


def remove(pattern, put=None):
    """Return a damage: what matches is removed; put: "file" or "folder", what is there instead."""

    def damage(place):
        paths = list(place.glob(pattern))
        assert paths
        for path in paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            if put:
                path.mkdir() if put == "folder" else path.write_text("x")

    return damage


def edit(change):
    """Return a damage: `change` of the dict in run.json."""

    def damage(place):
        path = place / "run" / "run.json"
        run = json.loads(path.read_text())
        change(run)
        path.write_text(json.dumps(run))

    return damage


def configured(key, value, words, command=SAMPLE):
    """Return a row: a field of the config in run.json is another; `...` takes it away."""

    def change(run):
        *sections, name = key.split(".")
        section = run["config"]
        for each in sections:
            section = section[each]
        if value is ...:
            del section[name]
        else:
            section[name] = value

    return Row(f"{key}={value!r}", edit(change), command, words)


def half(content):
    """Return the first half."""
    return content[: len(content) // 2]


def flip(content):
    """Return the content with one other byte in the middle."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


EDITED = "run.json edited trained put that back"
DAMAGED = "run.json damaged put that back"
RUN_JSON = [
    *(
        Row(f"run.json {name}", write("run/run.json", text), SAMPLE, DAMAGED)
        for name, text in {
            "empty": "",
            "{}": "{}",
            "a list": "[]",
            "null": "null",
            "NUL bytes": "\0" * 100,
            "not UTF-8": b"\xff\xfe",
            "deep": "[" * 100_000,
        }.items()
    ),
    Row("run.json cut", change_bytes("run/run.json", half), SAMPLE, DAMAGED),
    Row("run.json cut, train", change_bytes("run/run.json", half), TRAIN, DAMAGED),
    Row("run.json gone", remove("run/run.json"), SAMPLE, "no run.json train"),
    Row("run.json a folder", remove("run/run.json", "folder"), SAMPLE, "no run.json train"),
    Row("run.json gone, train", remove("run/run.json"), TRAIN, "checkpoints put run.json back"),
    *(
        configured(key, value, EDITED)
        for key, value in {
            "model.depth": 1,
            "model.heads": 4,
            "model.width": "x",
            "model": 3,
            "family": "gan",
            "text.length": 3,
            "text.encoder": "none",
            "data.resolution": 16,
            "data.name": "nope",
            "first_stage": 3,
            "seed": 1,
            "image_tokenizer.codes": 32,
        }.items()
    ),
    configured("model.heads", ..., EDITED),
    configured("family", ..., EDITED),
    configured("model.new", 1, EDITED),
    configured("model.depth", 1, EDITED, EVALUATE),
    configured("sample.temperature", "hot", "config.sample.temperature 'hot' a number"),
    configured("sample.temperature", -1, "config.sample.temperature -1.0 at least 0"),
    configured("sample.new", 1, "sample.new unknown temperature"),
    configured("evaluate.num", "x", "config.evaluate.num 'x' whole number"),
    configured("train.steps", -1, "config.train.steps -1 from 1"),
    configured("train.steps", 5, "holds another run config.train.steps 5 4 --workdir", TRAIN),
    configured("optim.learning_rate", "x", "config.optim.learning_rate 'x' a number"),
    *(
        Row(name, edit(lambda run, new=new: run.update(new)), SAMPLE, words)
        for name, new, words in (
            ("data 3", {"data": 3}, DAMAGED),
            ("config 3", {"config": 3}, DAMAGED),
            ("pretrained 3", {"pretrained": 3}, DAMAGED),
            ("pretrained.text", {"pretrained": {"text": {"name": "x"}}}, DAMAGED),
            ("settings", {"settings": "0"}, EDITED),
            ("tokenizer", {"tokenizer": "0"}, "tokenizer.json not the one trained with"),
            ("frozen", {"frozen": "0" * 16}, "0000000000000000.safetensors missing"),
        )
    ),
]
OTHER_FILES = [
    *(
        Row(f"tokenizer {name}", write("run/tokenizer.json", text), SAMPLE, words)
        for words in ("tokenizer.json not the one trained with",)
        for name, text in {"empty": "", "{}": "{}", "other": '{"version": "1.0"}'}.items()
    ),
    Row("tokenizer cut", change_bytes("run/tokenizer.json", half), SAMPLE, "tokenizer.json not"),
    Row("tokenizer gone", remove("run/tokenizer.json"), SAMPLE, "no tokenizer tokenizer.json"),
    Row(
        "tokenizer {}, train", write("run/tokenizer.json", "{}"), TRAIN, "tokenizer.json --workdir"
    ),
    Row("tokenizer gone, train", remove("run/tokenizer.json"), TRAIN, "tokenizer.json No such"),
    *(
        Row(f"frozen {name}", change_bytes("run/frozen/*", change), SAMPLE, words)
        for name, change, words in (
            ("empty", lambda content: b"", "safetensors damaged put back"),
            ("cut", half, "safetensors damaged put back"),
            ("flipped", flip, "safetensors changed hash"),
            ("header", lambda content: b"\xff" * 8 + content[8:], "safetensors damaged put back"),
            ("text", lambda content: b"hello" * 50, "safetensors damaged put back"),
        )
    ),
    Row("frozen cut, train", change_bytes("run/frozen/*", half), TRAIN, "safetensors damaged"),
    Row("frozen gone", remove("run/frozen/*"), SAMPLE, "safetensors missing fitted"),
    Row("frozen folder gone", remove("run/frozen"), SAMPLE, "safetensors missing fitted"),
    Row("checkpoints gone", remove("run/checkpoints"), SAMPLE, "no checkpoints train"),
    Row("checkpoints a file", remove("run/checkpoints", "file"), SAMPLE, "no checkpoints train"),
    Row(
        "checkpoints a file, train", remove("run/checkpoints", "file"), TRAIN, "checkpoints a file"
    ),
    Row("checkpoints empty", remove("run/checkpoints/*"), SAMPLE, "no checkpoint 'last' none"),
    Row("all are files", remove("run/checkpoints/*", "file"), SAMPLE, "no checkpoint 'last' none"),
    *(
        Row(f"checkpoint: {name}", damage, SAMPLE, "checkpoints/4 damaged another checkpoint 3, 4")
        for name, damage in (
            ("ema gone", remove("run/checkpoints/4/ema")),
            ("ema empty", remove("run/checkpoints/4/ema", "folder")),
            ("ema a file", remove("run/checkpoints/4/ema", "file")),
            ("data cut", change_bytes("run/checkpoints/4/ema/**/d/*", lambda x: x[:20])),
            ("data flipped", change_bytes("run/checkpoints/4/ema/**/d/*", flip)),
            ("manifest gone", remove("run/checkpoints/4/ema/manifest.ocdbt")),
            ("metadata gone", remove("run/checkpoints/4/ema/_METADATA")),
            ("metadata cut", change_bytes("run/checkpoints/4/ema/_METADATA", half)),
            ("metadata {}", write("run/checkpoints/4/ema/_METADATA", "{}")),
        )
    ),
    Row(
        "the one before", remove("run/checkpoints/4/ema"), SAMPLE + " --checkpoint=3", "000.png", 0
    ),
    Row("ema gone, evaluate", remove("run/checkpoints/4/ema"), EVALUATE, "checkpoints/4 damaged"),
    *(
        Row(f"--checkpoint={name}", nothing, f"{SAMPLE} --checkpoint={name}", f"'{name}' 3, 4")
        for name in ("foo", "-1", "3.0", "99", "../x", "LAST", "4x", "best", "ünï")
    ),
    Row(
        "no state can be read",
        change_bytes("run/checkpoints/*/train/**/d/*", lambda content: content[:20]),
        TRAIN,
        "no checkpoint can be read checkpoint 4 checkpoint 3",
    ),
    Row(
        "notes damaged",
        change_bytes("run/checkpoints/*/notes/metadata", half),
        TRAIN,
        "no checkpoint can be read checkpoint 4 checkpoint 3",
    ),
    Row("lock a folder", remove("run/lock", "folder"), TRAIN, "run/lock directory"),
    Row(
        "metrics a folder", remove("run/metrics.jsonl", "folder"), TRAIN, "metrics.jsonl directory"
    ),
    Row("tensorboard a file", remove("run/tensorboard", "file"), TRAIN, "tensorboard directory"),
    Row("evaluation a file", write("run/evaluation", "x"), EVALUATE, "evaluation a file"),
    Row("unknown split", nothing, EVALUATE + " --split=nope", "no split 'nope' train, validation"),
]
ROWS = [*RUN_JSON, *OTHER_FILES]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_damaged_run_folder(row, place):
    check_row(row, place)
    assert row.code == 0 or not (place / "out").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"setting": 3}', "\0", '{"setting": {}, "not_measured": []}']
)
def test_a_damaged_report_of_an_evaluation(text, place):
    folder = place / "run" / "evaluation" / "test"
    folder.mkdir(parents=True)
    row = Row(
        "", write(str(folder / "metrics.json"), text), EVALUATE, "metrics.json damaged delete"
    )
    check_row(row, place)


COMPARE = "compare {place}/run --out={place}/report"
ASKED = '"asked": [], "minutes": 0, "pictures": 0, "split": "test", "num": 0, "seed": 0'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "plan.json damaged delete"),
        ("[]", "plan.json damaged delete"),
        ("{}", "plan.json damaged delete another --out"),
        (f'{{{ASKED}, "subjects": {{}}}}', "report another comparison asked another --out"),
    ],
)
def test_a_damaged_plan_of_a_comparison(text, words, place):
    (place / "report").mkdir()
    check_row(Row("", write("report/plan.json", text), COMPARE, words), place)


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 damaged: delete this line"),
        ("[1]", "line 2 damaged: delete this line"),
        ('{"step": "x"}', "line 2 damaged: delete this line"),
        ('{"step": true}', "line 2 damaged: delete this line"),
        ('{"loss": 1.0}', "line 2 damaged: delete this line"),
        ("\xff", "line 2 damaged: delete this line"),
        ("", "line 2 damaged: delete this line"),
        (None, "is empty: put back"),
    ],
)
def test_damaged_lines_of_a_run_that_is_compared(name, line, words, place, monkeypatch):
    """What was measured stands already, so nothing is drawn."""
    path = place / "run" / name
    content = "" if line is None else f'{{"step": 1, "images_per_second": 1.0}}\n{line}\n'
    path.write_bytes(content.encode("latin-1"))
    measured = place / "report" / "measured" / "run" / "evaluation" / "test"
    measured.mkdir(parents=True)
    np.savez(measured / "pictures.npz", drawn=np.zeros(3), true=np.zeros(3))
    setting = {"config": {"train": {"batch_size": 8}}}
    report = {"setting": setting, "not_measured": {}}
    (measured / "metrics.json").write_text(json.dumps(report))
    monkeypatch.setattr("t2i_jax.evaluation.compare.left_to_measure", lambda *arguments: ())
    check_row(Row("", nothing, COMPARE, f"{name} {words}"), place)


def test_damaged_lines_of_metrics_are_left_out_and_told(place, no_score):
    """Training goes on, and the good lines stay; a last line that was cut is not told."""
    path = place / "run" / "metrics.jsonl"
    good = path.read_text().splitlines(keepends=True)
    assert len(good) == 2
    path.write_bytes(b"{broken\n[1]\n\xff\n" + good[0].encode() + b'{"step": "x"}\n3\n')
    with open(path, "a") as file:
        file.write(good[1] + '{"step": 4, "lo')
    ended = run_command(TRAIN, place=place)
    assert ended.code == 0 and path.read_text() == "".join(good)
    told = [line for line in ended.out.splitlines() if "is damaged" in line]
    assert told == [f"{path}, line {n} is damaged: it was left out" for n in (1, 2, 3, 5, 6)]


def test_a_full_disk_when_a_run_is_created(tmp_path):
    """The file is named, and nothing counts as a run."""
    with full_disk(300):
        ended = run_command(TRAIN, place=tmp_path)
    assert ended.code == 1 and len(ended.err.strip().splitlines()) == 1
    assert f"{tmp_path}/run/tokenizer.json: File too large" in ended.err
    assert not list(tmp_path.rglob("*.json"))


def test_a_full_disk_when_frozen_parts_are_saved(tmp_path):
    with (
        full_disk(300),
        pytest.raises(OSError, match=r"File too large: '.*frozen/\w+\.safetensors'$"),
    ):
        save_frozen(tmp_path, {"codebook": np.zeros(1000)})
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_when_a_checkpoint_is_saved(tmp_path, capfd):
    """One error is raised, and Orbax's threads print nothing."""
    weights = {f"w{i}": np.random.default_rng(i).normal(size=9999) for i in range(20)}
    average = {"params": weights, "extra": {}}
    state = TrainState(np.int32(1), weights, {}, {}, average, jax.random.key(0))
    with (
        full_disk(9999),
        pytest.raises(checkpoint.SaveError, match=r"^File too large$"),
        checkpoint.open_manager(tmp_path) as manager,
    ):
        checkpoint.save(manager, state, {})
        checkpoint.wait(manager)
    assert checkpoint.last_complete_step(tmp_path) is None
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (SAMPLE, "out/000.png"),
        ("encode --workdir={place}/run --image={place}/drawn/000.png --out={place}/new.npy", "new"),
        ("encode --workdir={place}/run --image={place}/drawn/000.png --out={place}/c.npy", "c.npy"),
        (
            "sample --workdir={place}/run --from={place}/drawn/000.png --out={place}/out",
            "again.png",
        ),
        (EVALUATE, "evaluation/test"),
    ],
)
def test_a_full_disk_when_results_are_saved(command, words, place):
    """Nothing half written is left, and what was there stays as it was."""
    before = snapshot(place)
    with full_disk(100):
        ended = run_command(command, place=place)
    assert ended.code == 1 and words in ended.err, ended
    assert len(ended.err.strip().splitlines()) == 1 and snapshot(place) == before
