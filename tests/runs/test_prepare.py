"""Preparing a run: created once, opened again, never another config; other runs resolved."""

import json
import os
import subprocess
import sys
from socket import gethostname

import numpy as np
import pytest

from t2i_jax import config as configs
from t2i_jax.families.load import load_family
from t2i_jax.runs import prepare, run_folder


def test_made_once_and_found_again(opened):
    config, training, workdir, (tokenizer, frozen) = opened
    assert frozen["first_stage"]["codebook"].shape == (64, 48)
    assert frozen["null_text"]["transformer"]["tokens"].shape == (12,)

    def fail(source, read_run):
        raise AssertionError("fitted again")

    family = load_family(config)._replace(make_frozen=fail)
    again, frozen_again = prepare.open_run(config, workdir, family, training)
    assert again.to_str() == tokenizer.to_str()
    np.testing.assert_array_equal(
        frozen_again["first_stage"]["codebook"], frozen["first_stage"]["codebook"]
    )


def test_a_run_that_never_came_to_a_checkpoint_may_be_begun_otherwise(opened, smoke):
    """A corrected command is not told that the folder holds another run."""
    _, training, workdir, _ = opened
    config = smoke("shapes", "seed=1", "image_tokenizer.codes=32")
    _, frozen = prepare.open_run(config, workdir, load_family(config), training)
    assert (
        frozen["first_stage"]["codebook"].shape == (32, 48)
        and run_folder.read_run(workdir)["config"]["seed"] == 1
    )


def test_init_from_takes_tokenizer_and_frozen_arrays_along(opened, smoke, tmp_path):
    _, training, workdir, (tokenizer, frozen) = opened
    config = smoke("shapes", "seed=5", f"init_from={workdir}")
    again, frozen_again = prepare.open_run(
        config, tmp_path / "second", load_family(config), training
    )
    assert again.to_str() == tokenizer.to_str()
    np.testing.assert_array_equal(
        frozen_again["first_stage"]["codebook"], frozen["first_stage"]["codebook"]
    )
    other = smoke("shapes", f"init_from={workdir}", "image_tokenizer.fit_pictures=31")
    with pytest.raises(
        ValueError,
        match=r"config\.image_tokenizer\.fit_pictures is 31, and that run was trained with 32",
    ):
        prepare.open_run(other, tmp_path / "third", load_family(other), training)


def test_an_unfinished_folder_is_made_anew(opened):
    """run.json is written last: without it, nothing in the folder counts."""
    config, training, workdir, _ = opened
    (workdir / "run.json").unlink()
    (workdir / "tokenizer.json").write_text("{")
    tokenizer, _ = prepare.open_run(config, workdir, load_family(config), training)
    assert tokenizer.get_vocab_size() > 258
    assert json.loads((workdir / "run.json").read_text())["data"] == training.fingerprint


def test_prepare_run_returns_what_training_needs(smoke, tmp_path):
    config = smoke("shapes", "text.length=4")
    seen = []
    prepared = prepare.prepare_run(
        config, tmp_path / "run", lambda config, family: seen.append((config, family))
    )
    assert seen == [(prepared.config, prepared.family)]
    count = len(prepared.training.source.captions)
    tokens = prepared.training.columns["text"]["transformer"]["tokens"]
    assert tokens.shape == (count, 4) and 0 < prepared.captions_cut <= count
    assert set(prepared.frozen) == {"null_text", "first_stage"}
    assert prepared.frozen_for_drawing is prepared.frozen and prepared.augment is None


def test_nothing_is_written_if_the_check_fails(smoke, tmp_path):
    def refuse(config, family_or_count):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prepare.prepare_run(smoke("shapes"), tmp_path / "run", refuse)
    with pytest.raises(ValueError, match="no"):
        prepare.prepare_run(smoke("shapes"), tmp_path / "run", check_data=refuse)
    assert not (tmp_path / "run").exists()


def test_the_configs_of_other_runs_are_filled_in(opened, smoke, tmp_path):
    _, _, workdir, _ = opened
    before = run_folder.read_run(workdir)["config"]
    config = smoke("shapes", f"first_stage.run={workdir}", f"reranker.run={workdir}")
    resolved = prepare.resolve(config)
    assert resolved.first_stage.config.to_dict() == resolved.reranker.config.to_dict()
    assert configs.from_json(json.dumps(before)) == resolved.reranker.config
    assert not config.first_stage.config, "the config that was given stays as it is"
    for field in ("first_stage", "reranker"):
        with pytest.raises(FileNotFoundError, match="is not a run folder"):
            prepare.resolve(smoke("shapes", f"{field}.run={tmp_path}/nowhere"))


def test_the_run_of_an_earlier_version_is_opened(opened, smoke):
    """Version 0.1 wrote `ranker` for `reranker.run`, and knew fewer fields."""
    config, training, workdir, (tokenizer, _) = opened
    run = run_folder.read_run(workdir)
    old = dict(run["config"], ranker="")
    del old["reranker"], old["optim"]["clip_examples"], old["optim"]["gradient_noise"]
    (workdir / "run.json").write_text(json.dumps({**run, "config": old}))
    again, _ = prepare.open_run(config, workdir, load_family(config), training)
    assert again.to_str() == tokenizer.to_str()
    assert run_folder.config_of(run_folder.read_run(workdir)) == config


def test_the_family_flow_is_now_called_diffusion(smoke):
    old = smoke("shapes_diffusion").to_dict() | {"family": "flow"}
    assert configs.from_json(json.dumps(old)).family == "diffusion"


def test_a_folder_in_use_is_refused_and_a_killed_process_leaves_it_free(smoke, tmp_path):
    """The message names the process and the host; the lock ends with the process."""
    script = (
        "import sys, time; from pathlib import Path; from t2i_jax.runs.lock import lock_folder;"
        "held = lock_folder(Path(sys.argv[1])); print('locked', flush=True); time.sleep(600)"
    )
    workdir = tmp_path / "run"
    workdir.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", script, workdir], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match=rf"in use by process {other.pid} on {gethostname()}"):
        prepare.prepare_run(smoke("shapes"), workdir)
    other.kill()
    other.wait()
    prepared = prepare.prepare_run(smoke("shapes"), workdir)
    with pytest.raises(ValueError, match=rf"in use by process {os.getpid()} "):
        prepare.prepare_run(smoke("shapes"), workdir)
    prepared.lock.close()
    prepare.prepare_run(smoke("shapes"), workdir).lock.close()
