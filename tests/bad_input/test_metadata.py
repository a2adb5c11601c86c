"""`sample --from`: pictures that are damaged, or whose metadata says what no pipeline writes."""

import json
import shutil

import pytest
from PIL import Image

from t2i_jax import pipeline
from tests.bad_input.command import Row, check_row, nothing, put_metadata, run_command, write


@pytest.fixture
def place(trained, loaded, tmp_path, monkeypatch):
    """A folder with a copy of drawn/000.png. The run is loaded once for all rows."""
    monkeypatch.setattr(pipeline, "load", lambda *arguments: loaded)
    return shutil.copytree(trained, tmp_path / "place", ignore=shutil.ignore_patterns("run"))


PICTURE = "drawn/000.png"
REDRAW = "sample --workdir={place}/run --from={place}/drawn/000.png --out={place}/again"


def told_by(place):
    """Return the metadata of the picture."""
    with Image.open(place / PICTURE) as image:
        return json.loads(image.info["t2i_jax"])


def entry(words, **changes):
    """Return a row: entries of the metadata are others; `...` leaves one out."""

    def damage(place):
        told = {**told_by(place), **changes}
        told = {name: value for name, value in told.items() if value is not ...}
        put_metadata(place / PICTURE, json.dumps(told))

    ((name, value),) = changes.items()
    return Row(f"{name}={value!r:.30}", damage, REDRAW, f"000.png metadata {words}")


def setting(words, **changes):
    """Return a row: settings in the metadata are others."""

    def damage(place):
        told = told_by(place)
        told["settings"] |= changes
        put_metadata(place / PICTURE, json.dumps(told))

    ((name, value),) = changes.items()
    return Row(f"settings.{name}={value!r:.30}", damage, REDRAW, f"000.png metadata {words}")


def whole(name, text, words="damaged JSON object"):
    """Return a row: the metadata is this text."""
    return Row(name, lambda place: put_metadata(place / PICTURE, text), REDRAW, f"000.png {words}")


def cut(keep):
    """Return a damage: the first `keep` bytes of the picture are left, or all but the last."""

    def damage(place):
        content = (place / PICTURE).read_bytes()
        (place / PICTURE).write_bytes(content[:keep])

    return damage


def resave(**changes):
    """Return a damage: Pillow saves the picture again."""

    def damage(place):
        with Image.open(place / PICTURE) as image:
            image.load()
        image.info.clear()
        image.save(place / PICTURE, **changes)

    return damage


ROWS = [
    Row("zero bytes", write(PICTURE, b""), REDRAW, "000.png readable picture PNG"),
    Row("text", write(PICTURE, "hello"), REDRAW, "000.png readable picture PNG"),
    Row("cut in the header", cut(20), REDRAW, "000.png readable PNG"),
    Row("cut in the metadata", cut(200), REDRAW, "000.png readable PNG"),
    Row("cut in the pixels", cut(-30), REDRAW, "000.png truncated PNG"),
    Row("JPEG", resave(format="JPEG"), REDRAW, "000.png no metadata"),
    Row("saved again", resave(), REDRAW, "000.png no metadata"),
    Row("no file", lambda place: (place / PICTURE).unlink(), REDRAW, "no picture 000.png PNG"),
    Row("a folder", nothing, REDRAW.replace("/000.png", ""), "no picture drawn PNG"),
    *(
        Row(name, make_link, REDRAW, "no picture 000.png PNG")
        for name, make_link in (
            ("dangling link", lambda place: link(place / PICTURE, "gone")),
            ("link loop", lambda place: link(place / PICTURE, "000.png")),
        )
    ),
    *(whole(text, text) for text in ("[1]", "3", "null", '"x"', "NaN", "{not json", "true")),
    whole("empty text", ""),
    whole("empty object", "{}", "metadata no 'prompt'"),
    whole("deep lists", "[" * 100_000),
    whole("a number of 5000 digits", '{"seed": ' + "9" * 5000 + "}"),
    entry("'batch' 0 from 1 to 64", batch=0),
    entry("'batch' 10000000 from 1 to 64", batch=10**7),
    entry("'batch' -1 from 1 to 64", batch=-1),
    entry("'batch' '4' whole number", batch="4"),
    entry("'batch' 4.5 whole number", batch=4.5),
    entry("'batch' True whole number", batch=True),
    entry("'row' 9 less than 'batch'", row=9),
    entry("'row' 3 at most 'index'", row=3),
    entry("'row' -1 from 0 to 63", row=-1),
    entry("'row' None whole number", row=None),
    entry("'index' -1 from 0", index=-1),
    entry("'index' 1099511627776 from 0 to 2,147,483,647", index=2**40),
    entry("'index' 'a' whole number", index="a"),
    entry("'seed' -1 from 0", seed=-1),
    entry("'seed' from 0 to 4,294,967,295", seed=10**400),
    entry("'seed' 4294967296 from 0 to 4,294,967,295", seed=2**32),
    entry("'seed' 0.5 whole number", seed=0.5),
    entry("'seed' 'x' whole number", seed="x"),
    entry("'prompt' 3 a text", prompt=3),
    entry("'prompt' ['a'] a text", prompt=["a"]),
    entry("Unicode UTF-8", prompt="\ud800"),
    entry("'settings' [] a dict", settings=[]),
    entry("'settings' None a dict", settings=None),
    entry("'weights' 3 a text", weights=3),
    entry("'config' None a dict", config=None),
    entry("config.reranker a section", config={"reranker": []}),
    entry("config.reranker.config a config", config={"reranker": {"config": 3}}),
    entry("config.reranker.run='x' here it is ''", config={"reranker": {"run": "x"}}),
    entry("config.first_stage a section", config={"first_stage": "x"}),
    entry("unknown entry 'foo' prompt, seed, index", foo=1),
    entry("unknown entry 'sed' 'seed'", sed=1),
    *(
        entry(f"no '{name}'", **{name: ...})
        for name in ("prompt", "seed", "index", "row", "batch", "settings", "weights", "config")
    ),
    setting("candidates 100000 from 1 1,024", candidates=100_000),
    setting("candidates 0 from 1", candidates=0),
    setting("candidates 1.5 whole number", candidates=1.5),
    setting("temperature 'hot' a number", temperature="hot"),
    setting("temperature '1.0' a number", temperature="1.0"),
    setting("temperature [1] a number", temperature=[1]),
    setting("temperature None a number", temperature=None),
    setting("temperature nan at least 0", temperature=float("nan")),
    setting("temperature is such as", temperature=10**400),
    setting("guidance True a number", guidance=True),
    setting("top_p 2 from 0 to 1", top_p=2),
    setting("top_k -3 from 0", top_k=-3),
    setting("no setting 'foo' temperature", foo=1),
]


def link(path, target):
    """Put a link in place of a file."""
    path.unlink()
    path.symlink_to(target)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_picture_that_was_not_drawn_so(row, place):
    check_row(row, place)
    assert not (place / "again").exists()


def test_of_another_run_and_inpainted(place):
    for change, said in (
        ({"weights": "0" * 16}, "was drawn by the weights 0000000000000000"),
        ({"ability": "inpaint"}, "was inpainted"),
    ):
        put_metadata(place / PICTURE, json.dumps({**told_by(place), **change}))
        ended = run_command(REDRAW, place=place)
        assert ended.code == 1 and said in ended.err


def test_other_pixels_are_told(place):
    """The picture is drawn again, and the file says that it is not the same."""
    told = told_by(place)
    Image.new("RGB", (16, 16)).save(place / PICTURE)
    put_metadata(place / PICTURE, json.dumps(told))
    ended = run_command(REDRAW, place=place)
    assert ended.code == 1 and "NOT the same pixels" in ended.err
    assert (place / "again" / "drawn-000-again.png").is_file()


def test_a_whole_picture_is_drawn_again(place):
    """So the rows above fail by what they change."""
    ended = run_command(REDRAW, place=place)
    assert ended.code == 0 and "the same, bit for bit" in ended.out, ended
