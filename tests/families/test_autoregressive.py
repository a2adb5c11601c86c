"""The autoregressive family learns a toy problem whose answer is known, and draws it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax import config as configs
from t2i_jax.core import state
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.pictures import to_unit
from t2i_jax.core.random import derive_keys
from t2i_jax.families import autoregressive
from t2i_jax.families.load import load_family
from t2i_jax.models import patch_codebook
from t2i_jax.training import step
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def toy():
    """Two captions and their pictures: token 5 for dark above bright, token 6 for the reverse."""
    overrides = ["data.resolution=8", "image_tokenizer.codes=2", "caption_dropout=0.2"]
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides)
    family = load_family(config)
    sample = jax.jit(family.abilities["sample"], static_argnames=family.static)
    family = family._replace(abilities={**family.abilities, "sample": sample})
    codebook = np.stack([np.full(48, -0.5), np.full(48, 0.5)]).astype(np.float32)
    length = config.text.length
    null = {"tokens": np.eye(1, length, dtype=np.int32)[0], "mask": np.arange(length) < 1}
    frozen = {
        "first_stage": {"codebook": jnp.asarray(codebook)},
        "null_text": {"transformer": null},
    }
    codes = np.array([[0, 0, 1, 1], [1, 1, 0, 0]])
    pictures = np.asarray(
        family.abilities["decode"](Variables({}, {}, frozen), {"codes": jnp.asarray(codes)})
    )
    words = np.zeros((2, length), np.int32)
    words[:, 0], words[:, 1] = (5, 6), 1
    text = {"tokens": words, "mask": np.tile(np.arange(length) < 2, (2, 1))}
    return config, family, frozen, codes, pictures, text


def test_encode_decode_reconstruct(toy):
    _, family, frozen, codes, pictures, _ = toy
    variables = Variables({}, {}, frozen)
    np.testing.assert_array_equal(family.abilities["encode"](variables, {"image": pictures}), codes)
    np.testing.assert_array_equal(
        family.abilities["reconstruct"](variables, {"image": pictures}), pictures
    )


def test_loss_is_the_mean_cross_entropy_of_the_tokens(toy):
    _, family, frozen, _, pictures, text = toy
    batch = {"image": pictures, "text": {"transformer": text}}
    init = jax.jit(family.init)
    params, extra = init(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), 2)
    ctx = Context(extra, frozen, None, 0, batch, keys, train=False)
    loss_of = jax.jit(
        lambda params, batch: family.losses["model"](params, ctx._replace(batch=batch))
    )
    loss, (_, metrics) = loss_of(params, batch)
    # A head of zeros gives log 2 for every token.
    params["model"]["net"]["vectors"]["head"] *= 0
    params["model"]["net"]["vectors"]["look_out"]["kernel"] *= 0
    uniform, _ = loss_of(params, batch)
    np.testing.assert_allclose(uniform, np.log(2), rtol=1e-6)
    assert loss.shape == (2,) and (metrics["token_accuracy"] <= 1).all()
    flipped = {**batch, "image": pictures[::-1]}
    other, _ = loss_of(init(jax.random.key(0), batch)[0], flipped)
    assert np.abs(other - loss).max() > 1e-4


def test_learns_the_toy_and_captions_decide(toy):
    _, family, frozen, _, pictures, text = toy
    pick = np.arange(32) % 2
    batch = {
        "image": pictures[pick],
        "text": {"transformer": jax.tree.map(lambda x: x[pick], text)},
    }
    optimizers = {"model": optax.adam(1e-2)}
    current = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    update = jax.jit(step.make_step(family, optimizers, ema_decay=0.5))
    for _ in range(150):
        current, metrics = update(current, frozen, batch)
    # A fifth of the captions is dropped: about 0.2 * log(2) / 4 tokens remain.
    assert metrics["loss"] < 0.1
    variables = Variables(current.params, {}, frozen)
    keys = jax.random.split(jax.random.key(2), 32)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 3.0, "candidates": 1}
    drawn = family.abilities["sample"](variables, {"text": batch["text"]}, keys, **settings)
    np.testing.assert_array_equal(drawn, batch["image"])
    null = frozen["null_text"]["transformer"]
    empty = {"transformer": {k: np.broadcast_to(v, (32, *v.shape)) for k, v in null.items()}}
    free = np.asarray(family.abilities["sample"](variables, {"text": empty}, keys, **settings))
    bright = (free[:, 0, 0, 0] > 127).mean()
    assert 0.2 < bright < 0.8  # without a caption, both pictures are drawn


def test_the_likeliest_candidate_is_kept(toy):
    _, family, frozen, _, pictures, text = toy
    pick = np.arange(16) % 2
    batch = {
        "image": pictures[pick],
        "text": {"transformer": jax.tree.map(lambda x: x[pick], text)},
    }
    params, extra = jax.jit(family.init)(jax.random.key(3), batch)
    # Some pictures become likelier than others.
    params["model"]["net"]["vectors"]["head"] = jax.random.normal(jax.random.key(4), (2, 32))
    keys = jax.random.split(jax.random.key(1), 16)

    def draw(keys, candidates):
        settings = {
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "guidance": 1.0,
            "candidates": candidates,
        }
        return np.asarray(
            family.abilities["sample"](Variables(params, extra, frozen), batch, keys, **settings)
        )

    alone = np.stack([draw(k, 1) for k in (keys, derive_keys(keys, 1), derive_keys(keys, 2))])
    ctx = Context(extra, frozen, None, 0, batch, keys, train=False)
    loss = jax.jit(
        lambda image: family.losses["model"](params, ctx._replace(batch={**batch, "image": image}))[
            0
        ]
    )
    costs = [loss(x) for x in alone]
    best = np.argmin(costs, axis=0)
    assert set(best) == {0, 1, 2}
    np.testing.assert_array_equal(draw(keys, 3), alone[best, np.arange(16)])


def test_a_reranker_adds_its_score(toy, monkeypatch):
    """Its score is added in nats; here it is so large that it decides alone."""
    config, _, frozen, _, pictures, text = toy
    monkeypatch.setattr(
        autoregressive.reranking,
        "make_reranker",
        lambda config: (
            lambda frozen, image, text: (
                frozen["reranker"] * image.mean((1, 2, 3)) * (2.0 * (text["tokens"][:, 0] == 5) - 1)
            )
        ),
    )
    family, pick = load_family(config), np.arange(16) % 2
    batch = {
        "image": pictures[pick],
        "text": {"transformer": jax.tree.map(lambda x: x[pick], text)},
    }
    params, extra = jax.jit(family.init)(jax.random.key(3), batch)
    keys = jax.random.split(jax.random.key(1), 16)

    @functools.partial(jax.jit, static_argnames="candidates")
    def draw(keys, candidates):
        variables = Variables(params, extra, {**frozen, "reranker": 1000.0})
        settings = {
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "guidance": 1.0,
            "candidates": candidates,
        }
        return family.abilities["sample"](variables, batch, keys, **settings).mean((1, 2, 3))

    alone = np.stack([draw(k, 1) for k in (keys, derive_keys(keys, 1), derive_keys(keys, 2))])
    assert (alone.std(0) > 0).any()
    np.testing.assert_allclose(
        draw(keys, 3), np.where(pick == 0, alone.max(0), alone.min(0)), rtol=1e-6
    )


def test_fewer_than_one_candidate(smoke):
    with pytest.raises(ValueError, match=r"sample\.candidates is 0: it must be from 1 to 1,024"):
        smoke("shapes", "sample.candidates=0")
    config = smoke("shapes")
    with config.unlocked():
        config.sample.candidates = 0
    with pytest.raises(ValueError, match=r"sample\.candidates is 0: at least 1"):
        load_family(config)


def test_codes_of_pictures_are_nearest(toy):
    _, _, frozen, _, pictures, _ = toy
    noisy = np.clip(
        pictures.astype(int) + np.random.default_rng(0).integers(-30, 30, pictures.shape), 0, 255
    ).astype(np.uint8)
    np.testing.assert_array_equal(
        *(
            patch_codebook.encode(frozen["first_stage"]["codebook"], to_unit(x))
            for x in (noisy, pictures)
        )
    )


def test_codes_of_pairs_and_masks():
    """The loss is that of the joint probabilities, and drawn codes are of the codebook."""
    overrides = ["data.resolution=8", "image_tokenizer.codes=6", "image_tokenizer.pairs=2"]
    family = load_family(configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides))
    pairs = np.array([[[-0.5] * 3] * 2, [[-0.5] * 3, [0.5, 0.0, 0.5]]], np.float32)
    masks = np.stack([np.zeros(16), np.ones(16), np.arange(16) % 2]).astype(np.float32)
    length = 12
    null = {"tokens": np.eye(1, length, dtype=np.int32)[0], "mask": np.arange(length) < 1}
    frozen = {
        "first_stage": {"pairs": jnp.asarray(pairs), "masks": jnp.asarray(masks)},
        "null_text": {"transformer": null},
    }
    codes = np.array([[0, 4, 5, 0], [5, 5, 4, 4]])
    of_frozen = Variables({}, {}, frozen)
    pictures = family.abilities["decode"](of_frozen, {"codes": jnp.asarray(codes)})
    again = family.abilities["encode"](of_frozen, {"image": pictures})
    np.testing.assert_array_equal(again, codes)
    text = {"tokens": np.full((2, length), 5), "mask": np.ones((2, length), bool)}
    batch = {"image": np.asarray(pictures), "text": {"transformer": text}}
    params, extra = jax.jit(family.init)(jax.random.key(0), batch)
    net = params["model"]["net"]
    assert net["vectors"]["head"].shape[0] == 2 + 3
    keys = jax.random.split(jax.random.key(1), 2)
    ctx = Context(extra, frozen, None, 0, batch, keys, train=False)
    nats, _ = jax.jit(lambda params: family.losses["model"](params, ctx))(params)
    # The output vectors begin at zero, up to those of the look of a code: near uniform.
    np.testing.assert_allclose(nats, np.log(6), atol=0.5)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 0.9, "guidance": 1.5, "candidates": 2}
    sample = jax.jit(functools.partial(family.abilities["sample"], **settings))
    drawn = sample(Variables(params, extra, frozen), batch, keys)
    redrawn = family.abilities["reconstruct"](of_frozen, {"image": drawn})
    np.testing.assert_array_equal(redrawn, drawn, "its patches are those of codes")


def test_pairs_must_divide_the_codes(smoke):
    with pytest.raises(ValueError, match=r"codes is 64: let it be a multiple"):
        load_family(smoke("shapes", "image_tokenizer.pairs=9"))


def test_resolution_must_divide(smoke):
    with pytest.raises(ValueError, match=r"data\.resolution 30 is not a multiple"):
        load_family(smoke("shapes", "data.resolution=30"))


@pytest.mark.parametrize(
    ("count", "share", "rows"),
    [
        (8, 0.25, [0, 4]),
        (4, 0.25, [0]),  # half of the row above, on each of two devices: the same examples
        (5, 1.0, [0, 1, 2, 3, 4]),
        (10, 0.3, [0, 3, 6]),
        (3, 0.1, [0]),
    ],
)
def test_a_share_of_a_batch_is_spread_over_it(count, share, rows):
    assert autoregressive.spread(count, share).tolist() == rows


def test_one_model_draws_and_captions(tiny_batch, monkeypatch):
    """The loss is that of drawing plus the weighted one of captions. Both train one transformer.

    It ranks candidates by log p(codes | caption) + log p(caption | codes).
    """
    overrides = (
        "text.vocab_size=300",
        "data.resolution=8",
        "captioning=0.25",
        "caption_dropout=0.0",
    )
    config = configs.load(f"{ROOT}/configs/shapes.py:smoke", overrides)
    batch, frozen = tiny_batch(config)
    frozen["first_stage"] = {
        "codebook": 0.3 * jax.random.normal(jax.random.key(3), (config.image_tokenizer.codes, 48))
    }
    both, keys = load_family(config), jax.random.split(jax.random.key(1), len(batch["image"]))
    with config.unlocked():
        config.captioning = 0.0
    alone = load_family(config)
    params, extra = jax.jit(both.init)(jax.random.key(0), batch)
    assert "trunk" not in params["model"]["words"] and "caption" not in alone.abilities
    ctx = Context(extra, frozen, None, 0, batch, keys, train=False)

    def run(family):
        def loss(params):
            losses, (_, metrics) = family.losses["model"](params, ctx)
            return losses.mean(), (losses, metrics)

        return jax.jit(jax.grad(loss, has_aux=True))(params)

    (gradient, (losses, metrics)), (drawing, (drawn, _)) = run(both), run(alone)
    np.testing.assert_allclose(losses, drawn + 0.25 * metrics["caption_loss"], rtol=1e-5)
    np.testing.assert_allclose(metrics["caption_loss"], np.log(300), rtol=1e-5)  # a head of zeros
    params["model"]["words"]["head"] = jax.random.normal(
        jax.random.key(2), params["model"]["words"]["head"].shape
    )
    gradient, (losses, metrics) = run(both)
    of_trunk = [jax.tree.leaves(x["model"]["net"]["trunk"]) for x in (gradient, drawing)]
    assert all(jnp.abs(a - b).max() > 0 for a, b in zip(*of_trunk, strict=True))
    variables = Variables(params, extra, frozen)
    caption = jax.jit(functools.partial(both.abilities["caption"], **both.settings["caption"]))
    tokens = caption(variables, {"image": batch["image"]}, keys)
    assert tokens.shape == (len(keys), config.text.length) and (tokens < 300).all()

    # In training, a quarter of the batch is captioned: these pictures have full weight.
    words, training = metrics["caption_loss"], ctx._replace(train=True)
    some, _ = jax.jit(lambda: both.losses["model"](params, training))()
    weight = np.isin(np.arange(len(keys)), [0, 4]).astype(float)
    np.testing.assert_allclose(some, losses + (weight - 0.25) * words, rtol=1e-4)

    codes = jax.jit(both.abilities["encode"])(variables, batch)
    scores = []

    def keep_best(draw, score_of, keys, candidates):
        scores.append(score_of(codes))
        return codes

    monkeypatch.setattr(autoregressive.reranking, "keep_best", keep_best)
    rank = functools.partial(both.abilities["sample"], **both.settings["sample"])
    _, score = jax.jit(lambda: (rank(variables, batch, keys), scores.pop()))()
    length = batch["text"]["transformer"]["mask"].sum(-1)
    np.testing.assert_allclose(score, -4 * (losses - 0.25 * words) - length * words, rtol=1e-4)
