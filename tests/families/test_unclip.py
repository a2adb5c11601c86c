"""unCLIP: a prior of embeddings, a decoder of them, and the pipeline of both, with tiny models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import t2i_jax
from t2i_jax import cli
from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.data import loader
from t2i_jax.families import unclip
from t2i_jax.families.embedder import conditioning_of, load_embedder
from t2i_jax.families.load import load_family
from t2i_jax.runs import prepare
from t2i_jax.runs.run_folder import read_variables
from tests.conftest import ROOT, write_untrained_run


def noisy(params):
    """Return parameters in which no array is all zeros, so that every input matters."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return tree.unflatten([np.asarray(x + 0.1 * rng.normal(size=x.shape), x.dtype) for x in leaves])


def write(folder, name, *overrides, change=noisy):
    """Make an untrained run of the tiny version of a config, and return its folder."""
    config = configs.load(f"{ROOT}/configs/{name}.py:smoke", overrides)
    write_untrained_run(config, folder, change)
    return str(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of an embedder, a prior and a decoder that names both."""
    folder = tmp_path_factory.mktemp("unclip")
    embedder = write(folder / "embedder", "shapes_contrastive")
    prior = write(folder / "prior", "shapes_prior", f"first_stage.run={embedder}")
    cascade = (f"embedder.run={embedder}", f"prior.run={prior}", "model.depth=1")
    decoder = write(folder / "decoder", "shapes_code_diffusion", *cascade)
    return {"embedder": embedder, "prior": prior, "decoder": decoder}


@pytest.fixture(scope="module")
def pipe(runs):
    return t2i_jax.load(runs["decoder"])


@pytest.fixture(scope="module")
def pictures():
    return list(np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8))


def pixels(drawn) -> np.ndarray:
    return np.stack([np.asarray(image) for image in getattr(drawn, "images", drawn)]).astype(int)


def context(prepared, train=False) -> Context:
    batch = loader.make_batch(*prepared.training, np.arange(8))
    frozen = jax.tree.map(jnp.asarray, prepared.frozen)
    return Context({}, frozen, {}, 0, batch, jax.random.split(jax.random.key(0), 8), train)


@pytest.fixture(scope="module")
def prepared(runs, tmp_path_factory):
    """A prior and a decoder, prepared for training."""
    found = {}
    for name, config, override in (
        ("prior", "shapes_prior", "first_stage"),
        ("decoder", "shapes_code_diffusion", "embedder"),
    ):
        chosen = configs.load(
            f"{ROOT}/configs/{config}.py:smoke", [f"{override}.run={runs['embedder']}"]
        )
        found[name] = prepare.prepare_run(chosen, tmp_path_factory.mktemp("run") / name)
        found[name].lock.close()
    return found


def test_the_loss_of_a_prior_that_predicts_a_constant(prepared):
    """Embeddings have unit variance; a network that says 0 is wrong by 1, one that says b by more.

    The last layer starts at 0, so that its bias is what the network says.
    """
    ctx, family = context(prepared["prior"]), prepared["prior"].family
    params, _ = jax.jit(family.init)(jax.random.key(0), ctx.batch)

    @jax.jit
    def measure(params, ctx):
        return family.losses["model"](params, ctx._replace(train=False))[0]

    loss = measure(params, ctx)
    np.testing.assert_allclose(loss, 1.0, rtol=1e-5)
    bias = np.linspace(-1, 1, 16, dtype=np.float32)
    params["model"]["net"]["out"]["bias"] = bias
    loss = measure(params, ctx)
    variables = Variables(params, {}, ctx.frozen)
    embed_image, embed_text = (jax.jit(family.abilities[f"embed_{x}"]) for x in ("image", "text"))
    image = embed_image(variables, {"image": ctx.batch["image"]})
    np.testing.assert_allclose(loss, ((4 * image - bias) ** 2).mean(1), rtol=1e-4)
    drawn = embed_text(variables, {"text": ctx.batch["text"]}, ctx.keys)
    np.testing.assert_allclose(drawn, np.tile(bias / np.linalg.norm(bias), (8, 1)), rtol=1e-4)


def test_a_prior_embeds_pictures_as_its_embedder_does(runs, pictures):
    prior, embedder = t2i_jax.load(runs["prior"]), t2i_jax.load(runs["embedder"])
    np.testing.assert_allclose(
        prior.embed_image(pictures), embedder.embed_image(pictures), atol=1e-6
    )
    drawn = prior.embed_text(["a red ring", "a blue star"], seed=1)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(drawn, prior.embed_text(["a red ring", "a blue star"], seed=1))
    assert (drawn != prior.embed_text(["a red ring", "a blue star"], seed=2)).all()


def test_what_a_decoder_is_told_in_training(prepared):
    ctx, config = context(prepared["decoder"]), prepared["decoder"].config
    embedder, conditioning = load_embedder(config), conditioning_of(config)
    own = embedder.image(ctx.frozen["embedder"], ctx.batch["image"])
    np.testing.assert_array_equal(conditioning.training_text(ctx, ctx.keys)["embedding"], own)
    dropped = configs.copy(config)
    dropped.caption_dropout = 0.5
    told = conditioning_of(dropped).training_text(ctx._replace(train=True), ctx.keys)
    kept = told["embedding"].any(1)
    assert 0 < kept.sum() < 8
    np.testing.assert_array_equal(told["embedding"][kept], own[kept])


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_captions_are_read_where_a_share_is_asked_for(prepared, share):
    config, ctx = configs.copy(prepared["decoder"].config), context(prepared["decoder"])
    config.embedder.captions = share
    conditioning = conditioning_of(config)
    params, condition = conditioning.init(jax.random.key(0), ctx.batch)
    text = conditioning.training_text(ctx, None)
    swapped = {**text, "tokens": text["tokens"][::-1], "mask": text["mask"][::-1]}
    one, other = (conditioning.encode(params, ctx.frozen, each) for each in (text, swapped))
    assert condition.sequence.shape[1:] == one.sequence.shape[1:] == (4 + 12 * (share > 0), 32)
    assert bool((one.pooled == other.pooled).all()) == (share == 0)
    both = conditioning.with_null(text, ctx.frozen)
    assert not both["embedding"][8:].any() and both["embedding"][:8].all()


def test_words_are_left_out_beside_an_embedding_too(prepared):
    config, ctx = configs.copy(prepared["decoder"].config), context(prepared["decoder"], train=True)
    config.embedder.captions = 1.0
    config.word_dropout = 0.5
    read = conditioning_of(config).training_text(ctx, ctx.keys)["mask"].sum(1)
    whole = ctx.batch["text"][config.text.encoder]["mask"].sum(1)
    assert (read <= whole).all() and (read < whole).any() and (read > 0).all()


def test_a_folder_with_a_run_of_another_family_does_not_hide_the_embedder(runs):
    chosen = configs.load(
        f"{ROOT}/configs/shapes_code_diffusion.py:smoke", [f"embedder.run={runs['embedder']}"]
    )
    resolved = prepare.resolve(chosen, runs["embedder"])
    assert resolved.embedder.config.family == "contrastive"


def test_a_caption_is_drawn_through_the_prior(runs, pipe):
    prompts = ["a large red circle"] * 2
    drawn = pixels(pipe(prompts, seed=3))
    np.testing.assert_array_equal(drawn, pixels(pipe(prompts, seed=3)))
    assert (drawn[0] != drawn[1]).any()
    alone = t2i_jax.load(runs["decoder"], overrides=["prior.run="])
    assert (pixels(alone(prompts, seed=3)) != drawn).any()
    assert "explain" not in pipe.family.abilities
    stranger = pixels(pipe(prompts, seed=3, negative_prompt="a small blue star"))
    assert (stranger != drawn).any()


def test_variations_and_the_way_between_two_pictures(pipe, pictures, tmp_path, runs):
    varied = pixels(pipe.vary(pictures, num=2, seed=5))
    np.testing.assert_array_equal(varied, pixels(pipe.vary(pictures, num=2, seed=5)))
    assert (varied[0] != varied[1]).any() and (varied[0] != varied[2]).any()
    way = pixels(pipe.interpolate(*pictures, seed=5, steps=3))
    ends = [pixels(pipe.vary(picture, seed=5))[0] for picture in pictures]
    assert len(way) == 3 and (way[1] != way[0]).any()
    for end, drawn in zip(ends, (way[0], way[-1]), strict=True):
        assert (end == drawn).mean() > 0.99  # codes near a tie may be rounded to another
    Image.fromarray(pictures[0]).save(tmp_path / "x.png")
    image, out = f"--image={tmp_path}/x.png", f"--out={tmp_path}/out"
    cli.main(["vary", f"--workdir={runs['decoder']}", image, "--num=2", "--seed=5", out])
    written = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").iterdir())]
    np.testing.assert_array_equal(written, varied[:2])
    with pytest.raises(ValueError, match="was varied"):
        pipe.redraw(tmp_path / "out/000.png")


def test_captions_describe_a_change(pipe, pictures):
    same = pixels(pipe.vary(pictures[0]))
    words = {"before": "a red ring", "after": "a blue ring"}
    np.testing.assert_array_equal(same, pixels(pipe.vary(pictures[0], before="x", after="x")))
    np.testing.assert_array_equal(same, pixels(pipe.vary(pictures[0], **words, amount=0.0)))
    assert (pixels(pipe.vary(pictures[0], **words, amount=1.0)) != same).any()


def test_a_change_goes_along_the_sphere():
    vectors, difference = jnp.array([[1.0, 0.0], [0.6, 0.8]]), jnp.array([[0.0, 3.0], [0.0, 0.0]])
    half = unclip.changed(vectors, difference, 0.5)
    np.testing.assert_allclose(half, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(unclip.changed(vectors, difference, 1.0)[0], [0, 1], atol=1e-6)
    np.testing.assert_allclose(unclip.changed(vectors, difference, 0.0), vectors, atol=1e-6)


def test_a_prior_of_another_embedder_is_refused(runs, tmp_path):
    other = write(tmp_path / "embedder", "shapes_contrastive", change=lambda params: params)
    prior = write(tmp_path / "prior", "shapes_prior", f"first_stage.run={other}")
    with pytest.raises(ValueError, match=r"embeddings of another model \(\w{16}\) than .*\(\w{16}"):
        t2i_jax.load(runs["decoder"], overrides=[f"prior.run={prior}"])
    copied = read_variables(runs["decoder"]).frozen["embedder"]
    mine = read_variables(runs["embedder"])
    jax.tree.map(np.testing.assert_array_equal, copied["params"], mine.params)


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        ("shapes_prior", {}, "needs config.first_stage.run"),
        ("shapes_prior", {"first_stage": "decoder"}, "it must be 'contrastive'"),
        ("shapes_diffusion", {"embedder": "prior"}, "family 'prior'; it must be 'contrastive'"),
        ("shapes_diffusion", {"prior": "prior"}, "embedder.run is empty"),
        ("shapes_diffusion", {"embedder": "embedder", "prior": "decoder"}, "it must be 'prior'"),
    ],
)
def test_runs_of_other_families_are_refused(runs, config, overrides, message):
    settings = [f"{section}.run={runs[name]}" for section, name in overrides.items()]
    chosen = prepare.resolve(configs.load(f"{ROOT}/configs/{config}.py:smoke", settings))
    with pytest.raises(ValueError, match=message):
        load_family(chosen)


def test_an_embedder_of_other_tokens_or_another_size_is_refused(runs, tmp_path):
    spec = f"{ROOT}/configs/shapes_code_diffusion.py:smoke"
    named = f"embedder.run={runs['embedder']}"
    with pytest.raises(ValueError, match=r"embedder\.run: .* reads other tokens"):
        prepare.prepare_run(configs.load(spec, [named, "text.vocab_size=300"]), tmp_path / "a")
    with pytest.raises(ValueError, match="embeds pictures of 32 px, and these have 16 px"):
        load_family(prepare.resolve(configs.load(spec, [named, "data.resolution=16"])))
