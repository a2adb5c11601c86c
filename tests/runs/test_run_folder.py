"""What may differ between the command that starts a run and the one that resumes it."""

import pytest

from t2i_jax.runs import run_folder


def test_what_may_and_what_may_not_change(opened, smoke, monkeypatch):
    _, training, workdir, _ = opened
    monkeypatch.setattr(run_folder.checkpoint, "last_complete_step", lambda workdir: 5)
    run = run_folder.read_run(workdir)
    free = [
        "sample.temperature=0.1",
        "evaluate.num=3",
        "parallel.mode=pmap",
        "train.save_every=1",
        "train.reader=threads",
    ]
    assert run_folder.refuse_changes(run, smoke("shapes", *free), training, workdir)
    with pytest.raises(ValueError, match=r"config\.seed is 1, the run has 0") as error:
        run_folder.refuse_changes(
            run, smoke("shapes", "seed=1", "model.depth=3"), training, workdir
        )
    assert "config.model.depth is 3" in str(error.value) and "nothing was changed" in str(
        error.value
    )
    with pytest.raises(ValueError, match=r"config\.family is 'diffusion'"):
        run_folder.refuse_changes(run, smoke("shapes_diffusion"), training, workdir)
