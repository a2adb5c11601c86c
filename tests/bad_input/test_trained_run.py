"""Bad arguments to a run, in Python and on the command line.

One run serves all rows: a tiny untrained model that draws, captions, encodes and decodes.
"""

import math
import shlex

import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import config as configs
from tests.bad_input.run_rows import run_row
from tests.conftest import ROOT, write_untrained_run

WHOLE, TEXT, MANY = "whole number from", "it is a text, or a list of texts", "1000000"
CODES = "this model decodes int32 [N, 64], not"
PICTURE = "a picture needs to be uint8"

# (Python, words of the message); FileNotFoundError and TypeError stand first where they are raised.
CALLS = [
    ("pipe('a', num=0)", "num is 0", WHOLE, "1 to"),
    ("pipe('a', num=-1)", "num is -1", WHOLE, "1 to"),
    ("pipe('a', num=2.5)", "num is 2.5", WHOLE),
    ("pipe('a', num='2')", "num is '2'", WHOLE),
    ("pipe('a', num=None)", "num is None", WHOLE),
    ("pipe('a', num=True)", "num is True", WHOLE),
    ("pipe('a', num=nan)", "num is nan", WHOLE),
    ("pipe('a', num=10**9)", "num is 1000000000", WHOLE, MANY),
    ("pipe('a', seed=-1)", "seed is -1", WHOLE, "0 to 4294967295"),
    ("pipe('a', seed=2**32)", "seed is 4294967296", WHOLE),
    ("pipe('a', seed=2**40)", "seed is 1099511627776", WHOLE),
    ("pipe('a', seed=1.5)", "seed is 1.5", WHOLE),
    ("pipe('a', seed='1')", "seed is '1'", WHOLE),
    ("pipe('a', seed=None)", "seed is None", WHOLE),
    ("pipe('a', seed=[1])", "seed is [1]", WHOLE),
    ("pipe([])", "nothing to draw", "at least one prompt"),
    ("pipe(None)", "prompts is None", TEXT),
    ("pipe(3)", "prompts is 3", TEXT),
    ("pipe(['a', None])", "prompts has None", TEXT),
    ("pipe(b'a')", "prompts has 97", TEXT),
    ("pipe({'a': 1})", "prompts is {'a': 1}", TEXT),
    ("pipe([['a']])", "prompts has ['a']", TEXT),
    ("pipe('a\\ud800')", "prompts", "not valid Unicode"),
    ("pipe('a', tempature=1)", "'tempature'", "did you mean 'temperature'?"),
    ("pipe('a', steps=3)", "no setting 'steps'", "temperature, top_k"),
    ("pipe('a', width=3)", "no setting 'width'", "temperature, top_k"),
    ("pipe('a', batch=3)", "no setting 'batch'", "temperature, top_k"),
    ("pipe('a', temperature='hot')", "temperature is 'hot'", "a number, such as 1.0"),
    ("pipe('a', temperature='0.5')", "temperature is '0.5'", "a number, such as 1.0"),
    ("pipe('a', temperature=None)", "temperature is None", "a number, such as 1.0"),
    ("pipe('a', temperature=True)", "temperature is True", "a number, such as 1.0"),
    ("pipe('a', temperature=[1.0])", "temperature is [1.0]", "a number, such as 1.0"),
    ("pipe('a', temperature=nan)", "temperature is nan", "at least 0"),
    ("pipe('a', temperature=-1)", "temperature is -1", "at least 0"),
    ("pipe('a', top_p=0)", "top_p is 0", "from 0.001 to 1"),
    ("pipe('a', top_p=2)", "top_p is 2", "from 0.001 to 1"),
    ("pipe('a', top_k=2.5)", "top_k is 2.5", "a whole number, such as 0"),
    ("pipe('a', top_k='x')", "top_k is 'x'", "a whole number, such as 0"),
    ("pipe('a', top_k=-1)", "top_k is -1", "from 0 to"),
    ("pipe('a', top_k=inf)", "top_k is inf", "a whole number, such as 0"),
    ("pipe('a', candidates=0)", "candidates is 0", "from 1 to 1,024"),
    ("pipe('a', candidates=100000)", "candidates is 100000", "from 1 to 1,024"),
    ("pipe('a', guidance=inf)", "guidance is inf", "from -1,000 to 1,000"),
    ("pipe('a', guidance=1j)", "guidance is 1j", "a number, such as"),
    ("pipe.edit('a', picture)", "cannot 'edit'", "it can caption, decode"),
    ("pipe.inpaint('a', picture, picture, candidates=0)", "candidates is 0", "from 1 to 1,024"),
    ("pipe.inpaint('a', picture, [])", "nothing to inpaint", "at least one mask"),
    ("pipe.inpaint('a', picture, None)", PICTURE, "got object"),
    ("pipe.inpaint('a', picture, np.zeros((4, 4), bool))", "a mask of shape (4, 4)", "(32, 32)"),
    ("pipe.inpaint('a', picture, 'x.txt')", "x.txt", "its format is none of PNG"),
    ("pipe.interpolate(picture, picture)", "cannot 'interpolate'", "it can caption, decode"),
    ("pipe.caption(picture, num=0)", "num is 0", WHOLE, "1 to"),
    ("pipe.caption(picture, num=1.5)", "num is 1.5", WHOLE),
    ("pipe.caption(picture, seed=-1)", "seed is -1", WHOLE),
    ("pipe.caption(picture, batch=0)", "batch is 0", WHOLE, "1 to"),
    ("pipe.caption(picture, batch=-1)", "batch is -1", WHOLE),
    ("pipe.caption(picture, beams=0)", "beams is 0", "from 1 to 256"),
    ("pipe.caption(picture, beams=1000)", "beams is 1000", "from 1 to 256"),
    ("pipe.caption(picture, beams=2, temperature=1)", "beams is 2", "let temperature be 0"),
    ("pipe.caption(picture, length_penalty=nan)", "length_penalty is nan", "at least 0"),
    ("pipe.caption([])", "nothing to caption", "at least one picture"),
    ("pipe.caption(None)", PICTURE, "got object"),
    ("pipe.caption(3)", PICTURE, "got int64"),
    ("pipe.caption([picture, None])", PICTURE, "got object"),
    ("pipe.caption(np.zeros((8, 8, 3)))", PICTURE, "got float64 [8, 8, 3]"),
    ("pipe.caption(np.zeros((8, 8, 5), 'uint8'))", "C from 1 (grey) to 4", "[8, 8, 5]"),
    ("pipe.caption(np.zeros((0, 8, 3), 'uint8'))", "[H, W, C]", "[0, 8, 3]"),
    ("pipe.caption('nowhere.png')", FileNotFoundError, "no picture nowhere.png"),
    ("pipe.caption('x.txt')", "x.txt", "its format is none of PNG"),
    ("pipe.reconstruct(picture, ['a', 'b'])", "2 prompts for 1 pictures"),
    ("pipe.reconstruct(picture, None)", "prompts is None", TEXT),
    ("pipe.encode([])", "nothing to encode", "at least one picture"),
    ("pipe.decode([])", CODES, "float64 [0]"),
    ("pipe.decode(None)", CODES, "object []"),
    ("pipe.decode('codes.npy')", CODES),
    ("pipe.decode(np.zeros((1, 63), 'int32'))", CODES, "int32 [1, 63]"),
    ("pipe.decode(np.zeros(64, 'int32'))", CODES, "int32 [64]"),
    ("pipe.decode(np.zeros((1, 64), 'float32'))", CODES, "float32 [1, 64]"),
    ("pipe.decode(np.zeros((0, 64), 'int32'))", "nothing to decode"),
    ("pipe.redraw('nowhere.png')", FileNotFoundError, "no picture nowhere.png"),
    ("load('nowhere')", FileNotFoundError, "nowhere is not a run folder"),
    ("load(None)", TypeError, "os.PathLike"),
    ("load(run, 'beast')", FileNotFoundError, "no checkpoint 'beast'", "there are 0"),
    ("load(run, 4)", FileNotFoundError, "no checkpoint 4", "there are 0"),
    ("load(run, None)", FileNotFoundError, "no checkpoint None", "there are 0"),
    ("load(run, which='best')", TypeError, "'which'"),
    ("load(run, overrides=3)", "overrides is 3", TEXT),
    ("load(run, overrides=[3])", "overrides has 3", TEXT),
    ("load(run, overrides={'sample.top_p': 0.5})", "overrides is {", TEXT),
    ("load(run, overrides='sample.top_p=2')", "config.sample.top_p is 2.0", "from 0.001 to 1"),
    ("load(run, overrides=['sample.topp=1'])", "did you mean 'sample.top_p'?"),
    ("load(run, overrides=['train.steps=3'])", "config.train.steps", "sample.*"),
    ("load(run, overrides=['seed=3'])", "config.seed", "sample.*"),
    ("load(run, overrides=['model.width=3'])", "config.model.width", "sample.*"),
    ("load(run, overrides=['sample=3'])", "config.sample", "sample.*"),
    ("load(run, overrides=['inpaint.x=3'])", "unknown config key 'inpaint.x'"),
    ("load(run, overrides=['data.path=x'])", "'data.path'", "data has"),
    ("load(run, overrides=['reranker.run=nowhere'])", FileNotFoundError, "nowhere is not a run"),
]

# (command line, words of the line). All end with exit code 1, but for those that stand first.
COMMANDS = [
    (
        f"train --workdir=new --config={ROOT}/configs/shapes.py:smoke --config.data.scenes=3",
        "image_tokenizer.codes is 64",
        "as many distinct patches",
    ),
    ("sample --workdir=RUN --prompt=a --config.seed=3", "config.seed", "sample.*"),
    ("sample --workdir=RUN --prompt=a --config.train.steps=3", "config.train.steps", "sample.*"),
    ("sample --workdir=RUN --prompt=a --config.model.width=3", "config.model.width", "sample.*"),
    ("sample --workdir=RUN --prompt=a --config.sample.top_p=2", "config.sample.top_p is 2.0"),
    ("sample --workdir=RUN --prompt=a --config.sample.top_p two", "sample.top_p", "'two' is not"),
    ("sample --workdir=RUN --prompt=a --config.sample.steps=3", "'sample.steps'"),
    ("sample --workdir=RUN --prompt=a --checkpoint=beast", "no checkpoint 'beast'", "there are 0"),
    ("sample --workdir=RUN --prompt=a --checkpoint=-1", "no checkpoint '-1'", "there are 0"),
    ("sample --workdir=RUN --prompts=none.txt", "--prompts", "no file none.txt"),
    ("sample --workdir=RUN --from=x.png --num=2", "--from", "leave out --num"),
    ("sample --workdir=RUN --from=x.png --seed=0", "--from", "leave out --num, --seed"),
    ("sample --workdir=RUN --from=x.png", "x.png has no t2i_jax metadata"),
    ("edit --workdir=RUN --image=x.png", "cannot 'edit'", "it can caption"),
    ("inpaint --workdir=RUN --image=x.png --mask=x.txt", "x.txt", "its format is none of PNG"),
    ("interpolate --workdir=RUN --image x.png x.png", "cannot 'interpolate'", "it can caption"),
    ("caption --workdir=RUN --image=no.png", "no picture no.png"),
    (2, "caption --workdir=RUN --image=", "--image: its value is empty"),
    ("caption --workdir=RUN --image=x.png --config.caption.beams=0", "caption.beams is 0"),
    ("reconstruct --workdir=RUN --image=x.txt", "x.txt", "its format is none of PNG"),
    ("decode --workdir=RUN --codes=wrong.npy", CODES, "int32 [1, 63]"),
    ("evaluate --workdir=RUN --split=tset", "no split 'tset'", "train"),
    ("evaluate --workdir=RUN --measure=fid", "no measure 'fid'", "fidelity"),
    ("evaluate --workdir=RUN --config.evaluate.num=0", "config.evaluate.num is 0", "from 1 to"),
    ("evaluate --workdir=RUN --config.train.steps=9", "config.train.steps", "evaluate.*"),
    ("compare RUN --minutes=1", "--minutes", "these are all run folders"),
    ("compare RUN --pictures=9", "--pictures", "these are all run folders"),
    ("compare RUN --config.train.steps=9", "config.train.steps", "evaluate.*"),
    ("compare RUN --split=tset", "no split 'tset'", "train"),
    (2, "sample --workdir=RUN --prompt=a --guidance=3", "mean --config.sample.guidance=3?"),
    (2, "caption --workdir=RUN --image=x.png --beams=2", "mean --config.caption.beams=2?"),
    (2, "evaluate --workdir=RUN --batch=2", "mean --config.evaluate.batch=2?"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("bad_input") / "run"
    write_untrained_run(
        configs.load(f"{ROOT}/configs/shapes.py:smoke", ["captioning=0.5"]), workdir
    )
    return workdir


@pytest.fixture(scope="module")
def pipe(run):
    return t2i_jax.load(run)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder of a row, with a picture, a text and codes of a wrong shape in it."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "x.png")
    (tmp_path / "x.txt").write_text("no picture")
    np.save(tmp_path / "wrong.npy", np.zeros((1, 63), np.int32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("call", "words"), [(call, words) for call, *words in CALLS])
def test_a_bad_call_is_refused_in_one_line(call, words, pipe, run, folder):
    kind = ValueError if isinstance(words[0], str) else words.pop(0)
    known = {"pipe": pipe, "run": run, "load": t2i_jax.load, "nan": math.nan, "inf": math.inf}
    known |= {"np": np, "picture": Image.open(folder / "x.png")}
    before = set(folder.iterdir())
    with pytest.raises(kind) as error:
        eval(call, known)
    said = str(error.value)
    assert "\n" not in said and all(word in said for word in words), said
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: str(row[-2] if row[0] == 2 else row[0]))
def test_a_bad_command_is_refused_in_one_line(row, run, folder):
    code, line, *words = row if isinstance(row[0], int) else (1, *row)
    result = run_row(shlex.split(line.replace("RUN", str(run))))
    said = result["said"]
    assert (result["code"], result["made"]) == (code, []), said
    assert said.count("\n") == 1 and all(word in said for word in words), said
