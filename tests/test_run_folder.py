"""A run's folder: made once, found again, and refused to another config."""

import json

import numpy as np
import pytest

from t2i_jax import checkpoint, run_folder
from t2i_jax.data import source as sources
from t2i_jax.families import family as families


@pytest.fixture
def opened(smoke, tmp_path):
    config = smoke("shapes")
    training = sources.load(config.data, "train")
    return config, training, tmp_path / "run", run_folder.open_run(config, tmp_path / "run", families.load(config), training)


def test_made_once_and_found_again(opened):
    config, training, workdir, (tokenizer, frozen) = opened
    assert frozen["first_stage"]["codebook"].shape == (64, 48)
    assert frozen["null_text"]["transformer"]["tokens"].shape == (12,)

    def fail(source):
        raise AssertionError("fitted again")

    family = families.load(config)._replace(make_frozen=fail)
    again, frozen_again = run_folder.open_run(config, workdir, family, training)
    assert again.to_str() == tokenizer.to_str()
    np.testing.assert_array_equal(frozen_again["first_stage"]["codebook"], frozen["first_stage"]["codebook"])


def test_what_may_and_what_may_not_change(opened, smoke, monkeypatch):
    _, training, workdir, _ = opened
    monkeypatch.setattr(checkpoint, "last_whole", lambda workdir: 5)
    run = run_folder.read_run(workdir)
    free = ["sample.temperature=0.1", "evaluate.num=3", "parallel.mode=pmap", "train.save_every=1"]
    assert run_folder.refuse_changes(run, smoke("shapes", *free), training, workdir)
    with pytest.raises(ValueError, match=r"config\.seed is 1, the run has 0") as error:
        run_folder.refuse_changes(run, smoke("shapes", "seed=1", "model.depth=3"), training, workdir)
    assert "config.model.depth is 3" in str(error.value) and "nothing was changed" in str(error.value)
    with pytest.raises(ValueError, match=r"config\.family is 'flow'"):
        run_folder.refuse_changes(run, smoke("shapes_flow"), training, workdir)


def test_a_run_that_never_came_to_a_checkpoint_may_be_begun_otherwise(opened, smoke):
    """Whatever was wrong with the first command, the corrected one is not told that the folder holds another run."""
    _, training, workdir, _ = opened
    config = smoke("shapes", "seed=1", "image_tokenizer.codes=32")
    _, frozen = run_folder.open_run(config, workdir, families.load(config), training)
    assert frozen["first_stage"]["codebook"].shape == (32, 48) and run_folder.read_run(workdir)["config"]["seed"] == 1


def test_init_from_takes_tokenizer_and_frozen_arrays_along(opened, smoke, tmp_path):
    _, training, workdir, (tokenizer, frozen) = opened
    config = smoke("shapes", "seed=5", f"init_from={workdir}")
    again, frozen_again = run_folder.open_run(config, tmp_path / "second", families.load(config), training)
    assert again.to_str() == tokenizer.to_str()
    np.testing.assert_array_equal(frozen_again["first_stage"]["codebook"], frozen["first_stage"]["codebook"])
    other = smoke("shapes", f"init_from={workdir}", "image_tokenizer.fit_pictures=31")
    with pytest.raises(ValueError, match=r"config\.image_tokenizer\.fit_pictures is 31, and that run was trained with 32"):
        run_folder.open_run(other, tmp_path / "third", families.load(other), training)


def test_an_unfinished_folder_is_made_anew(opened):
    """run.json is written last: without it, nothing in the folder counts."""
    config, training, workdir, _ = opened
    (workdir / "run.json").unlink()
    (workdir / "tokenizer.json").write_text("{")
    tokenizer, _ = run_folder.open_run(config, workdir, families.load(config), training)
    assert tokenizer.get_vocab_size() > 258
    assert json.loads((workdir / "run.json").read_text())["data"] == training.fingerprint
