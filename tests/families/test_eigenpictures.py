"""Principal components of small pictures, and the network that enlarges what they give back."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.core.family import Context, Variables
from t2i_jax.core.source import Source
from t2i_jax.data.degradation import enlarge, shrink
from t2i_jax.families import diffusion, eigenpictures
from tests.conftest import ROOT

SIDE, COUNT = 16, 12


@pytest.fixture(scope="module")
def config():
    config = configs.load(f"{ROOT}/configs/emoji_eigenpictures.py:smoke")
    with config.unlocked():
        config.data.resolution = SIDE
        config.eigenpictures.update(components=COUNT - 1, fit_pictures=COUNT)
    return config


@pytest.fixture(scope="module")
def images():
    """Smooth pictures, which lose nothing when they are made smaller."""
    r = np.random.default_rng(0)
    small = jnp.asarray(r.uniform(-0.7, 0.7, (COUNT, 4, 4, 3)))
    return np.asarray(jnp.round((enlarge(small, 4) + 1) * 127.5), np.uint8)


@pytest.fixture(scope="module")
def made(config, images):
    """Return (family, untrained variables)."""
    family = eigenpictures.make(config)
    source = Source([""] * COUNT, lambda index: images[index], "")
    frozen = family.make_frozen(source, lambda run: None)
    params, extra = family.init(jax.random.key(0), {})
    return family, Variables(params, extra, frozen)


def loss_of(family, variables, images, train, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(images))
    ctx = Context({}, variables.frozen, None, jnp.array(0), {"image": images}, keys, train)
    return np.asarray(family.losses["model"](variables.params, ctx)[0])


def test_at_first_it_is_the_bicubic_enlargement(made, images):
    """As many components as pictures differ in describe the small pictures exactly."""
    family, variables = made
    z = family.abilities["encode"](variables, {"image": images})
    assert z.shape == (COUNT, 1, 1, COUNT - 1)
    small = np.asarray(shrink(images / np.float32(127.5) - 1, 2)).reshape(COUNT, -1)
    singular = np.linalg.svd(small - small.mean(0), compute_uv=False)[: COUNT - 1]
    variance = singular / singular.mean()  # half whitened: in proportion to the deviation
    np.testing.assert_allclose(np.mean(z**2, 0).ravel(), variance, rtol=0.03)
    y = family.abilities["reconstruct"](variables, {"image": images})
    plain = enlarge(shrink(images / np.float32(127.5) - 1, 2), 2)
    assert abs(np.asarray(y, np.float32) - np.asarray((plain + 1) * 127.5)).max() < 3.0


def test_the_loss_is_the_absolute_difference_and_has_noise_in_training_alone(made, images):
    family, variables = made
    y = np.asarray(family.abilities["reconstruct"](variables, {"image": images}), np.float32)
    exact = abs(y - images).mean((1, 2, 3)) / 127.5
    measured = loss_of(family, variables, images, train=False)
    np.testing.assert_allclose(measured, exact, atol=0.5 / 127.5)
    np.testing.assert_array_equal(measured, loss_of(family, variables, images, False, seed=1))
    noisy = loss_of(family, variables, images, train=True)
    assert (noisy > measured).all()
    assert not np.array_equal(noisy, loss_of(family, variables, images, True, seed=1))


def test_noise_has_deviations_from_none_to_the_largest():
    keys = jax.random.split(jax.random.key(0), 400)
    deviation = np.asarray(eigenpictures.some_noise(keys, (1, 1, 500), 0.2)).std((1, 2, 3))
    np.testing.assert_allclose(
        np.quantile(deviation, [0.25, 0.5, 0.75]), [0.05, 0.1, 0.15], atol=0.02
    )
    assert deviation.max() < 0.23


def test_latents_of_a_run_are_those_of_its_family(config, made, images):
    family, variables = made
    latents = eigenpictures.make_latents(config)
    stage = latents.fit(variables, None)
    z = latents.encode(stage, images)
    np.testing.assert_array_equal(z, family.abilities["encode"](variables, {"image": images}))
    np.testing.assert_array_equal(
        latents.decode(stage, z), family.abilities["decode"](variables, {"latent": z})
    )


def test_a_scale_that_does_not_divide_the_side_is_refused(config):
    other = configs.copy(config)
    with other.unlocked():
        other.data.resolution = 15
    with pytest.raises(ValueError, match=r"eigenpictures.scale is 2: it has to divide"):
        eigenpictures.make(other)


def test_prototypes_start_as_a_search_among_training_pictures_by_their_captions():
    config = configs.load(f"{ROOT}/configs/emoji_flow.py:smoke")
    with config.unlocked():
        config.model.prototypes = 3
    pooled = np.array([[3.0, 0.0], [9.0, 9.0], [0.0, 2.0], [9.0, 9.0], [0.0, 0.0], [9.0, 9.0]])
    conditioning = SimpleNamespace(
        text_of=lambda columns: columns["text"],
        encode=lambda params, frozen, text: SimpleNamespace(pooled=jnp.asarray(text["pooled"])),
    )
    with pytest.raises(ValueError, match=r"set first_stage.cache=True"):
        diffusion.prototypes_from_data(config, conditioning)
    config.first_stage.cache = True
    start = diffusion.prototypes_from_data(config, conditioning)
    latents = np.random.default_rng(0).normal(size=(6, 1, 1, 5)).astype(np.float32)
    net = {"in": 1, "prototypes": {"embedding": 0}, "scores_of_text": {"kernel": 0, "bias": 2}}
    columns = {"latent": latents, "text": {"pooled": pooled}}
    net = start({"model": {"text": {}, "net": net}}, {}, columns)["model"]["net"]
    assert net["in"] == 1 and net["scores_of_text"]["bias"] == 2
    np.testing.assert_array_equal(net["prototypes"]["embedding"], latents[[0, 2, 4], 0, 0])
    # Cosines with a caption as long as the picture's own, times 20; an empty one has no score.
    scores = pooled[[0, 2]] @ np.asarray(net["scores_of_text"]["kernel"])
    np.testing.assert_allclose(scores, [[20.0, 0.0, 0.0], [0.0, 20.0, 0.0]], atol=1e-4)
    with pytest.raises(ValueError, match=r"model.prototypes is 3, and there are 2 training"):
        start({"model": {"text": {}, "net": net}}, {}, {"latent": latents[:2]})
