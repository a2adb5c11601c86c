"""No condition and no parameters; a run without text parameters is saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from t2i_jax.core import state
from t2i_jax.core.fields import defaults_of
from t2i_jax.families.load import load_family
from t2i_jax.runs import checkpoint
from t2i_jax.text import none
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from t2i_jax.training import optimizer, start


def test_every_caption_is_the_empty_one(tmp_path):
    encoder = none.make(ConfigDict(defaults_of(none.fields(None))))
    encoder.make_tokenizer(["a red star"]).save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizers.load(tmp_path / "tokenizer.json")
    for length in (1, 4):
        text, num_cut = tokenizers.encode(
            tokenizer, ["", "a red star", " ", "two\nlines, 猫 <|end|>" * 9], length
        )
        assert num_cut == 0
        np.testing.assert_array_equal(
            text["tokens"], [[tokenizers.END] + [tokenizers.PAD] * (length - 1)] * 4
        )
        np.testing.assert_array_equal(text["mask"].sum(1), 1)


def test_the_condition_is_zeros():
    encoder = none.make(ConfigDict(defaults_of(none.fields(None))))
    params, example = encoder.init(jax.random.key(0), 3)
    assert params == {} and encoder.make_frozen() == {}
    mask = np.arange(3) < np.array([[3], [1]])
    out = encoder.apply(params, {}, {"tokens": np.full((2, 3), 7), "mask": mask})
    assert [x.shape for x in out[:3]] == [(2, 3, 1), (2, 1), (2, 3)] and [
        x.shape[1:] for x in example[:3]
    ] == [
        (3, 1),
        (1,),
        (3,),
    ]
    assert not out.sequence.any() and not out.pooled.any()
    np.testing.assert_array_equal(out.mask, mask)


def test_a_run_without_text_parameters_is_saved_resumed_and_started_from(
    smoke, tiny_batch, tmp_path
):
    config = smoke("shapes_diffusion", "text.encoder=none")
    family, optimizers = load_family(config), {"model": optimizer.make(config.optim, 4)}
    batch, _ = tiny_batch(config)
    abstract = jax.eval_shape(lambda: state.create(family, optimizers, batch, 0))
    assert (
        abstract.params["model"]["text"] == {}
        and make_encoder(config.text).make_tokenizer([]).get_vocab_size() == 0
    )
    filled = jax.tree.map(
        lambda x: jnp.ones(x.shape, x.dtype), abstract._replace(rng=jnp.uint32(0))
    )
    whole = filled._replace(rng=jax.random.key(3), step=jnp.int32(5))
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, whole, {"pending": []})
        checkpoint.wait(manager)
        got = checkpoint.restore(manager, abstract, lambda tree: tree)
    assert (
        got.step == 5
        and not got.passed_over
        and jax.tree.structure(got.state) == jax.tree.structure(whole)
    )
    ema, _ = checkpoint.restore_ema(tmp_path)
    assert jax.tree.structure(ema["params"]) == jax.tree.structure(whole.params)
    fresh = jax.tree.map(jnp.zeros_like, whole._replace(rng=jnp.uint32(0)))
    started = start.start_from(fresh, ema["params"], ema.get("extra") or {}, "run")
    jax.tree.map(np.testing.assert_array_equal, started.params, whole.params)
