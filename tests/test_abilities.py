"""Every ability through its command and its method, with tiny models."""

import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import cli
from t2i_jax import config as configs
from t2i_jax.data.pictures import read_picture
from t2i_jax.data.provenance import read_metadata
from tests.conftest import ROOT, write_untrained_run


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two noisy pictures of 32 px, and a mask whose left half is white."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(
            folder / f"{name}.png"
        )
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


def tiny_run(tmp_path_factory, name, encoder):
    """Make an untrained run of the tiny version of a config on `shapes`, and return its folder."""
    config = configs.copy(configs.load(f"{ROOT}/configs/{name}.py:smoke"))
    config.data = {"name": "shapes", "resolution": 32, "scenes": 64}
    config.text.encoder = encoder
    workdir = tmp_path_factory.mktemp("run") / name
    write_untrained_run(config.lock(), workdir)
    return workdir


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    return tiny_run(tmp_path_factory, "shapes_masked", "transformer")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return tiny_run(tmp_path_factory, "fashion_vae", "none")


def read(path):
    return np.asarray(Image.open(path))


def test_inpaint_changes_the_masked_part_alone(masked, pictures, tmp_path, capsys):
    run(
        "inpaint",
        f"--workdir={masked}",
        f"--image={pictures}/a.png",
        f"--image={pictures}/b.png",
        f"--mask={pictures}/mask.png",
        "--prompt=a large red circle",
        "--num=2",
        f"--out={tmp_path}",
    )
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 4 and len(capsys.readouterr().out.splitlines()) == 4
    drawn = np.stack([read(path) for path in paths])
    before = np.stack([read(pictures / f"{name}.png") for name in "aabb"])
    np.testing.assert_array_equal(drawn[:, :, 16:], before[:, :, 16:])
    assert (drawn[:, :, :16] != before[:, :, :16]).any((1, 2, 3)).all()
    told = read_metadata(paths[0])
    assert told["ability"] == "inpaint" and told["prompt"] == "a large red circle"
    pipe = t2i_jax.load(masked)
    with pytest.raises(ValueError, match="was inpainted"):
        pipe.redraw(paths[0])
    mask = read(pictures / "mask.png") > 127
    again = pipe.inpaint(
        "a large red circle", [pictures / "a.png", pictures / "b.png"], mask, num=2
    )
    np.testing.assert_array_equal(np.stack([np.asarray(x) for x in again.images]), drawn)


def test_outpaint_keeps_the_picture_and_draws_margins(masked, pictures, tmp_path):
    image, margins = pictures / "a.png", ["--left=8", "--top=12", "--bottom=4"]
    run("outpaint", f"--workdir={masked}", f"--image={image}", *margins, f"--out={tmp_path}")
    drawn = read(tmp_path / "000.png")
    kept = read_picture(image, 16, 24)  # what the margins leave of 32 x 32
    np.testing.assert_array_equal(drawn[12:28, 8:], kept)
    edge = np.pad(kept, ((12, 4), (8, 0), (0, 0)), mode="edge")
    assert (drawn[:12] != edge[:12]).any() and (drawn[:, :8] != edge[:, :8]).any()
    pipe = t2i_jax.load(masked)
    (same,) = pipe.outpaint("", [image], top=12, bottom=4, left=8).images
    np.testing.assert_array_equal(np.asarray(same), drawn)
    with pytest.raises(ValueError, match=r"margins of 0 \+ 0 and 16 \+ 16 pixels leave nothing"):
        pipe.outpaint("", image, left=16, right=16)
    with pytest.raises(ValueError, match="left"):
        pipe.outpaint("", image, left=-1)


KINDS = {  # a file of each kind that must be read
    "cmyk.jpg": lambda path: Image.new("CMYK", (40, 32), (0, 200, 90, 10)).save(path),
    "moving.gif": lambda path: Image.new("P", (32, 32), 7).save(
        path, save_all=True, append_images=[Image.new("P", (32, 32), 9)], duration=50
    ),
    "deep.png": lambda path: Image.fromarray(np.full((32, 40), 40_000, np.uint16)).save(path),
    "tiny.png": lambda path: Image.new("RGB", (1, 3), "red").save(path),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_picture_and_every_mask_is_inpainted(masked, tmp_path, name):
    """An empty mask gives the picture back, a full one draws all of it."""
    KINDS[name](tmp_path / name)
    before, pipe = read_picture(tmp_path / name, 32), t2i_jax.load(masked)
    full = np.ones((32, 32), bool)
    for mask in (~full, full, np.eye(32, dtype=bool)):
        (drawn,) = pipe.inpaint("a ring", tmp_path / name, mask).images
        np.testing.assert_array_equal(np.asarray(drawn)[~mask], before[~mask])
        assert not mask.any() or (np.asarray(drawn)[mask] != before[mask]).any()


def test_a_broken_picture_or_mask_is_refused_by_name(masked, pictures, tmp_path):
    whole, pipe = (pictures / "a.png").read_bytes(), t2i_jax.load(masked)
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for given in ((tmp_path / "cut.png", pictures / "b.png"), (pictures / "b.png", "cut.png")):
        image, mask = (tmp_path / each for each in given)
        with pytest.raises(ValueError, match=r"cut\.png: not a readable picture"):
            pipe.inpaint("a", image, mask)


def test_masks_that_do_not_fit_are_refused(masked, pictures):
    pipe = t2i_jax.load(masked)
    with pytest.raises(ValueError, match=r"a mask of shape \(4, 4\): this model needs \(32, 32\)"):
        pipe.inpaint("a", pictures / "a.png", np.ones((4, 4), bool))
    with pytest.raises(ValueError, match="2 masks for 1 pictures"):
        pipe.inpaint("a", pictures / "a.png", np.ones((2, 32, 32), bool))


def test_codes_and_back(masked, pictures, tmp_path):
    """`reconstruct` is `decode` of `encode`; codes travel through a file."""
    images = [f"--image={pictures}/a.png", f"--image={pictures}/b.png"]
    run("encode", f"--workdir={masked}", *images, f"--out={tmp_path}/codes.npy")
    codes = np.load(tmp_path / "codes.npy")
    assert codes.shape == (2, 64) and codes.dtype == np.int32
    run("decode", f"--workdir={masked}", f"--codes={tmp_path}/codes.npy", f"--out={tmp_path}/d")
    run("reconstruct", f"--workdir={masked}", *images, f"--out={tmp_path}/r")
    for name in ("000.png", "001.png"):
        np.testing.assert_array_equal(read(tmp_path / "d" / name), read(tmp_path / "r" / name))


def test_interpolate_goes_from_one_reconstruction_to_the_other(vae, pictures, tmp_path):
    ends = [pictures / "a.png", pictures / "b.png"]
    run("interpolate", f"--workdir={vae}", "--image", *ends, "--num=5", f"--out={tmp_path}")
    way = [read(path) for path in sorted(tmp_path.iterdir())]
    assert len(way) == 5
    pipe = t2i_jax.load(vae)
    for end, image in zip((way[0], way[-1]), pipe.reconstruct(ends), strict=True):
        assert np.abs(end.astype(int) - np.asarray(image)).max() <= 1
    latents = pipe.encode(ends)
    assert latents.shape == (2, 16) and latents.dtype == np.float32
    again = np.stack([np.asarray(x) for x in pipe.decode(latents)])
    assert np.abs(again.astype(int) - np.stack([way[0], way[-1]])).max() <= 1


def test_translate_goes_in_both_directions(tmp_path_factory, pictures, tmp_path, capsys):
    workdir, image = tiny_run(tmp_path_factory, "emoji_cyclegan", "none"), pictures / "a.png"
    pipe = t2i_jax.load(workdir)
    for direction in ("forward", "backward"):
        setting = f"--config.translate.direction={direction}"
        out = tmp_path / direction
        run("translate", f"--workdir={workdir}", f"--image={image}", setting, f"--out={out}")
        (drawn,) = pipe.translate(image, direction=direction)
        np.testing.assert_array_equal(read(out / "000.png"), np.asarray(drawn))
    assert (read(tmp_path / "forward/000.png") != read(tmp_path / "backward/000.png")).any()
    with pytest.raises(ValueError, match="forward or backward"):
        pipe.translate(image, direction="sideways")
    with pytest.raises(ValueError, match="no setting 'seed'"):
        pipe.translate(image, seed=1)


def test_stylize_keeps_the_size_and_draws_the_same_again(
    tmp_path_factory, pictures, tmp_path, strided_maps
):
    workdir, image = tiny_run(tmp_path_factory, "emoji_style", "none"), pictures / "a.png"
    wide = np.concatenate([read(image), 255 - read(image)[:, :9]], axis=1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    what = [f"--image={tmp_path}/wide.png", f"--style={pictures}/b.png", "--side=41"]
    run("stylize", f"--workdir={workdir}", *what, f"--out={tmp_path}")
    drawn, pipe = read(tmp_path / "000.png"), t2i_jax.load(workdir)
    style = np.asarray(Image.open(pictures / "b.png").resize((41, 41), Image.Resampling.LANCZOS))
    (same,) = pipe.stylize(tmp_path / "wide.png", style)
    np.testing.assert_array_equal(np.asarray(same), drawn)
    assert drawn.shape == wide.shape
    (weaker,) = pipe.stylize(wide, style, strength=0.0)
    assert (np.asarray(weaker) != drawn).any()
    with pytest.raises(ValueError, match="strength"):
        pipe.stylize(wide, style, strength=2.0)


@pytest.fixture(scope="module")
def drawer(tmp_path_factory):
    return tiny_run(tmp_path_factory, "shapes", "transformer")


def test_word_maps_are_saved_beside_the_pictures(drawer, tmp_path, capsys):
    """`sample --explain` writes the overlay of what `explain` says of the picture it drew."""
    prompt = ["--prompt=a small red circle", "--num=2"]
    run("sample", f"--workdir={drawer}", *prompt, "--explain", f"--out={tmp_path}/a")
    names = ["000-words.png", "000.png", "001-words.png", "001.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    assert len(capsys.readouterr().out.splitlines()) == 2
    images = [f"--image={tmp_path}/a/{name}.png" for name in ("000", "001")]
    run("explain", f"--workdir={drawer}", *images, prompt[0], f"--out={tmp_path}/b")
    for i in range(2):
        beside, alone = read(tmp_path / f"a/00{i}-words.png"), read(tmp_path / f"b/00{i}.png")
        np.testing.assert_array_equal(beside, alone)
    pipe = t2i_jax.load(drawer)
    drawn = pipe("a small red circle", num=2, explain=True)
    np.testing.assert_array_equal(np.asarray(drawn.images[0]), read(tmp_path / "a/000.png"))
    for found in drawn.word_maps:
        assert found.words == ["a", "small", "red", "circle"]
        np.testing.assert_allclose(found.maps.sum((1, 2)), 1.0, atol=1e-5)
    assert pipe("a small red circle").word_maps == ()
    with pytest.raises(SystemExit):
        run("sample", f"--workdir={drawer}", f"--from={tmp_path}/a/000.png", "--explain")
    assert "use `explain`" in capsys.readouterr().err


def test_a_data_set_is_generated_and_its_pictures_can_be_drawn_again(drawer, tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("a ring\na small red circle\n")
    what = [f"--prompts={tmp_path}/captions.txt", "--num=2", "--seed=5"]
    run("generate-dataset", f"--workdir={drawer}", *what, f"--out={tmp_path}/made")
    made = sorted((tmp_path / "made").glob("*.png"))
    assert f"made: {len(made)} pictures; the source folder reads it" in capsys.readouterr().out
    image, same = t2i_jax.load(drawer).redraw(made[-1])
    assert same
    np.testing.assert_array_equal(np.asarray(image), read(made[-1]))


def test_what_cannot_be_explained_is_refused(drawer, masked, pictures, monkeypatch):
    pipe, image = t2i_jax.load(drawer), pictures / "a.png"
    with pytest.raises(ValueError, match="nothing to explain: give at least one picture"):
        pipe.explain([], [])
    with pytest.raises(ValueError, match="2 captions for 1 pictures"):
        pipe.explain(image, ["a ring", "a star"])
    with pytest.raises(ValueError, match="the caption '' has no word"):
        pipe.explain(image, "")
    with pytest.warns(UserWarning, match="more than"):
        words = pipe.explain(image, "a small red circle " * 9)[0].words
    assert 4 <= len(words) < 36
    with monkeypatch.context() as patch:  # before anything is drawn
        patch.setattr(type(pipe), "draw", lambda *given, **more: pytest.fail("it draws"))
        with pytest.raises(ValueError, match="the caption ' ' has no word"):
            pipe(["a ring", " "], explain=True)
    for call in (
        lambda: t2i_jax.load(masked)("a ring", explain=True),
        lambda: t2i_jax.load(masked).explain(image, "a ring"),
    ):
        with pytest.raises(ValueError, match="cannot 'explain'; it can decode, encode"):
            call()


def test_an_ability_that_a_model_lacks_names_those_it_has(masked, pictures):
    pipe = t2i_jax.load(masked)
    for call in (
        lambda: pipe.caption(pictures / "a.png"),
        lambda: pipe.interpolate(pictures / "a.png", pictures / "b.png"),
        lambda: pipe.embed_image(pictures / "a.png"),
        lambda: pipe.embed_text("a red ring"),
    ):
        with pytest.raises(ValueError, match="it can decode, encode, inpaint, reconstruct, sample"):
            call()
