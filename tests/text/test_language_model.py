"""A language model that draws: it keeps its words and its trunk, and learns codes of pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.convert import language_model
from t2i_jax.core import state
from t2i_jax.core.fields import defaults_of
from t2i_jax.families.load import load_family
from t2i_jax.text import language_model as text_module
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from t2i_jax.training import step
from tests.convert.test_language_model import GPT2, LLAMA, publish

CAPTIONS = ["a small red circle", "a large blue star", "a red star", ""] * 2
PATH = "configs/shapes_llm.py"


def test_words_are_rows_of_the_table_and_positions():
    tokens = jnp.array([[5, 6, 7], [8, 1, 0]])
    mask = jnp.array([[True, True, True], [True, True, False]])
    for positions in (0, 4):
        own = {"encoder": "language_model", "vocab_size": 300, "width": 8, "positions": positions}
        defaults = defaults_of(text_module.fields(None))
        encoder = make_encoder(ConfigDict({**defaults, **own}))
        params, example = encoder.init(jax.random.key(0), 3)
        out = encoder.apply(params, {}, {"tokens": tokens, "mask": mask})
        expected = np.asarray(params["embed"]["embedding"])[tokens] + (
            params["positions"][:3] if positions else 0
        )
        np.testing.assert_array_equal(out.sequence, expected)
        np.testing.assert_allclose(out.pooled[1], expected[1, :2].mean(0), rtol=1e-5)
        assert example.sequence.shape == (1, 3, 8) and set(params) == (
            {"embed", "positions"} if positions else {"embed"}
        )
    with pytest.raises(ValueError, match=r"text\.length is 5: this language model has 4 positions"):
        encoder.init(jax.random.key(0), 5)
    assert encoder.make_tokenizer(CAPTIONS * 9).get_vocab_size() <= 300


@pytest.mark.parametrize("published", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_it_starts_as_published_and_learns(published, tmp_path):
    from tests.conftest import ROOT

    folder = publish(tmp_path, published)
    config = configs.load(
        f"{ROOT}/{PATH}:{folder}", ["text.length=6", "data.resolution=8", "image_tokenizer.codes=8"]
    )
    assert config.init_from == str(folder) and config.model.width == 16
    family, rng = load_family(config), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 8, 8, 3)).astype(np.uint8)
    source = type(
        "Source", (), {"captions": CAPTIONS, "read": lambda self, index: pictures[index]}
    )()
    tokenizer = language_model.tokenizer(folder)
    text, num_cut = tokenizers.encode(tokenizer, CAPTIONS, 6)
    null = {name: x[3] for name, x in text.items()}
    assert (
        num_cut == 0
        and text["tokens"][0].tolist() == [1, 2, 4, 6, 0, 0]
        and null["mask"].sum() == 1
    )
    batch = {"image": pictures, "text": {"language_model": text}, "index": np.arange(8)}
    frozen = {"null_text": {"language_model": null}, **family.make_frozen(source, None)}

    optimizers = {"model": optax.adam(1e-2)}
    fresh = jax.jit(lambda: state.create(family, optimizers, batch, 0))()
    params = language_model.start(folder, config, fresh.params)
    assert jax.tree.structure(params) == jax.tree.structure(fresh.params)
    _, kept = language_model.read(folder)
    jax.tree.map(np.testing.assert_array_equal, params["model"]["text"], kept["text"])
    jax.tree.map(np.testing.assert_array_equal, params["model"]["net"]["trunk"], kept["trunk"])
    for name in ("vectors", "near"):
        jax.tree.map(
            np.testing.assert_array_equal,
            params["model"]["net"][name],
            fresh.params["model"]["net"][name],
        )
    vectors = params["model"]["net"]["vectors"]
    assert vectors["embed"].shape == (8 + 1, 16) and vectors["head"].shape == (8, 16)

    current = fresh._replace(params=jax.tree.map(jnp.asarray, params))
    update, losses = jax.jit(step.make_step(family, optimizers, ema_decay=0.9)), []
    for _ in range(8):
        current, metrics = update(current, frozen, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    table, before = (
        current.params["model"]["text"]["embed"]["embedding"],
        kept["text"]["embed"]["embedding"],
    )
    moved = np.abs(table - before).max(axis=1) > 0
    # Words that no caption has stay as they were.
    np.testing.assert_array_equal(moved, np.isin(np.arange(9), text["tokens"]))


def test_a_config_of_other_sizes_is_refused_before_weights_are_read(tmp_path):
    from tests.conftest import ROOT

    folder = publish(tmp_path, LLAMA)
    (folder / "model.safetensors").unlink()
    config = configs.load(f"{ROOT}/{PATH}:smoke")
    with pytest.raises(
        ValueError, match=r"does not fit the language model of .*\n.*text\.vocab_size is 512, not 9"
    ):
        language_model.start(folder, config, {})


def test_smollm2_builds():
    from tests.conftest import ROOT

    config = configs.load(f"{ROOT}/{PATH}")
    family, length = load_family(config), config.text.length
    text = {"tokens": jnp.zeros((1, length), jnp.int32), "mask": jnp.ones((1, length), bool)}
    batch = {"image": jnp.zeros((1, 32, 32, 3), jnp.uint8), "text": {"language_model": text}}
    params = jax.eval_shape(family.init, jax.random.key(0), batch)[0]["model"]
    shapes = language_model.shapes(language_model.fields(language_model.VARIANTS["SmolLM2-135M"]))
    assert {"text": params["text"], "trunk": params["net"]["trunk"]} == shapes
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 134_515_008
    assert params["net"]["vectors"]["head"].shape == (1024, 576)
