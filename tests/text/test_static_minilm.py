"""The table of fixed vectors: principal components, and a run that no longer needs MiniLM."""

import jax
import numpy as np
import pytest

import t2i_jax
from t2i_jax.runs.prepare import prepare_run
from t2i_jax.runs.run_folder import read_variables
from t2i_jax.text import minilm, static_minilm
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder
from tests.conftest import write_untrained_run
from tests.text.test_minilm import TINY, WORDS, wheel


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static_minilm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_JAX_DATA", str(folder))
        patch.setattr(minilm, "NET", TINY)
        patch.setattr(static_minilm, "COMPONENTS", 4)
        wheel(folder / "downloads")
        yield folder
    minilm._read.cache_clear()


def config_of(smoke, **fields):
    config = smoke("shapes")
    with config.unlocked():
        config.text = {"encoder": "static_minilm", "length": 12}
        config.text.update(fields)
        config.train.update(steps=2, save_every=2, eval_every=2, log_every=1, grid=2)
    return config


def test_tokens_are_embedded_as_captions_of_one_word():
    embeddings = minilm.embed_tokens()
    assert embeddings.shape == (len(WORDS), 8)
    words = ["red", "circle", "two"]
    rows = [WORDS.index(word) for word in words]
    np.testing.assert_allclose(embeddings[rows], minilm.embed(words), atol=1e-6)


def test_distances_of_the_table_are_those_of_the_embeddings():
    """All components together are a rotation, and a scale."""
    embeddings = minilm.embed_tokens()
    table = static_minilm.distil(embeddings, 8)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table.std(), 1.0, rtol=1e-5)

    def distances(x):
        return np.linalg.norm(x[:, None] - x[None], axis=-1)

    ratio = distances(table)[np.triu_indices(len(table), 1)]
    ratio = ratio / distances(embeddings)[np.triu_indices(len(table), 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-3)
    # The first columns are the components of largest variance.
    assert (np.diff(table.var(0)) <= 1e-6).all()
    few = static_minilm.distil(embeddings, 3)
    np.testing.assert_allclose(few / few[0, 0], table[:, :3] / table[0, 0], atol=1e-4)


def test_captions_are_the_means_of_their_words_and_of_one_length(smoke):
    encoder = make_encoder(config_of(smoke).text)
    frozen, (params, example) = encoder.make_frozen(), encoder.init(jax.random.key(0), 12)
    assert params == {} and example.sequence.shape == (1, 12, 4)
    captions = ["red circle", "circle red", "a large blue star above a red ring", ""]
    text = tokenizers.encode(encoder.make_tokenizer([]), captions, 12)[0]
    out = encoder.apply(params, frozen, text)
    # A token has the same vector in every caption; those around it have none.
    np.testing.assert_array_equal(out.sequence[0, 1], out.sequence[2, 7])
    table = frozen["embedding"]
    assert not table[[WORDS.index("[CLS]"), WORDS.index("[SEP]")]].any()
    mean = table[WORDS.index("red")] + table[WORDS.index("circle")]
    np.testing.assert_allclose(out.pooled[0], 2 * mean / np.linalg.norm(mean), rtol=1e-5)
    np.testing.assert_allclose(out.pooled[0], out.pooled[1], rtol=1e-6)
    assert not np.asarray(out.pooled[3]).any()


def test_a_run_and_those_that_start_from_it_need_minilm_no_more(smoke, tmp_path, data):
    config = config_of(smoke)
    write_untrained_run(config, tmp_path / "run")
    table = read_variables(tmp_path / "run").frozen["text"]["embedding"]
    (data / "downloads" / minilm.WHEEL).rename(data / "away")
    minilm._read.cache_clear()
    try:
        pipe = t2i_jax.load(str(tmp_path / "run"))
        np.testing.assert_array_equal(pipe.variables.frozen["text"]["embedding"], table)
        with config.unlocked():
            config.init_from = str(tmp_path / "run")
        prepared = prepare_run(config, tmp_path / "next")
        prepared.lock.close()
        np.testing.assert_array_equal(prepared.frozen["text"]["embedding"], table)
        assert table.shape == (len(WORDS), 4)
    finally:
        (data / "away").rename(data / "downloads" / minilm.WHEEL)
