"""The commands stylize and dream, with a network whose maps are the picture itself."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from t2i_jax import cli
from t2i_jax.features.extractor import Extractor
from t2i_jax.restyling import read_within


def apply(weights, pictures):
    x = jnp.asarray(pictures) / 255.0
    return {"features": x.mean((1, 2)), "maps": [x, x[:, ::2, ::2], x[:, ::4, ::4]]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with pictures of several kinds."""
    network = Extractor("Pixels", "none", {}, apply)
    monkeypatch.setattr("t2i_jax.features.extractor.load", lambda name, path: network)
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(noise).save("x.png")
    Image.new("CMYK", (20, 10), (0, 250, 250, 0)).save("red.jpg")  # of one colour
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save("deep.png")
    frames = [Image.new("P", (9, 9), level) for level in (3, 200)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:], duration=40)
    (tmp_path / "cut.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
    return tmp_path


def run(line):
    cli.main(line.split())


def read(path):
    return np.asarray(Image.open(path)).astype(int)


def test_a_style_of_one_colour_pulls_the_colours_to_it(folder, capsys):
    run("stylize --image=x.png --style=red.jpg --side=16 --steps=40 --strength=10 --out=styled")
    made, before = read("styled/000.png"), read("x.png")
    assert made.shape == (12, 16, 3)
    assert (made[..., 0] - made[..., 1]).mean() > (before[..., 0] - before[..., 1]).mean() + 50
    first, last = capsys.readouterr().out.split("loss ")[1].split(" to ")
    assert float(last) < float(first)


def test_a_style_in_one_pass(folder, monkeypatch, capsys):
    monkeypatch.setattr("t2i_jax.features.magenta_style.load", lambda: "weights")

    def mixed(weights, content, style, strength):
        mean = style.mean((0, 1)) * strength
        return (np.zeros_like(content) + mean.astype(np.uint8)) if weights == "weights" else None

    monkeypatch.setattr("t2i_jax.features.magenta_style.stylize", mixed)
    what = "--image=x.png --image=deep.png --style=red.jpg --side=16 --method=magenta_style"
    run(f"stylize {what} --strength=0.5 --out=half")
    run(f"stylize {what} --out=whole")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 4 and said[0].split() == ["half/000.png", "x.png"]
    assert read("whole/000.png").shape == (12, 16, 3) and read("whole/001.png").shape[0] == 16
    np.testing.assert_array_equal(read("half/000.png"), read("whole/000.png") // 2)


def test_dreams_of_every_kind_of_file(folder, capsys):
    kinds = "--image=red.jpg --image=deep.png --image=moving.gif"
    run(f"dream {kinds} --layer=features --channel=2 --side=16 --octaves=1 --steps=2 --out=made")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all(": score " in line for line in said)
    for i, name in enumerate(("red.jpg", "deep.png", "moving.gif")):
        change = read(f"made/00{i}.png") - read_within(name, 16).astype(int)
        np.testing.assert_array_equal(change[..., :2], 0)
        np.testing.assert_allclose(change[..., 2], 12, atol=1)  # 2 steps of 3 times the rate of 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dream --image=x.png --layer=map9", "no layer 'map9': it has features, map0"),
        ("dream --image=x.png --channel=3 --layer=map0", "no channel 3: 0 to 2"),
        ("dream --image=cut.png", "cut.png: not a readable picture"),
        ("dream --image=no.png", "no picture no.png"),
        ("stylize --image=x.png --style=cut.png", "cut.png: not a readable picture"),
        ("stylize --image=x.png --style=red.jpg --strength=-1", "not a number from 0 to"),
        (
            "stylize --image=x.png --style=red.jpg --method=magenta_style --steps=3",
            "--steps is of --method=optimise",
        ),
        (
            "stylize --image=x.png --style=red.jpg --method=magenta_style --strength=2",
            "--strength of magenta_style is from 0 to 1",
        ),
        (
            "stylize --image=x.png --style=red.jpg --workdir=run --steps=3",
            "--steps is of --method=optimise, and not of a run",
        ),
        (
            "stylize --image=x.png --style=red.jpg --workdir=run --method=optimise",
            "leave out --method",
        ),
        ("stylize --image=x.png --style=red.jpg --method=other", "invalid choice: 'other'"),
        ("stylize --image=x.png --style=red.jpg --config.a=1", "leave out --config"),
    ],
)
def test_bad_input_is_refused_in_one_line(line, words, folder, capsys):
    with pytest.raises(SystemExit):
        run(f"{line} --out=made")
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not (folder / "made").exists()
