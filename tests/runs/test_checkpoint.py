"""Saving and restoring: everything comes back bit for bit; damage is passed over and said."""

import json
import shutil
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t2i_jax.core.state import TrainState
from t2i_jax.runs import checkpoint
from t2i_jax.runs.frozen import load_frozen


def state_at(step):
    params = {"model": {"w": jnp.full((40, 50), step / 7), "b": jnp.arange(3.0)}}
    opt_state = {"model": optax.adamw(0.1).init(params["model"])}
    extra = {"count": jnp.int32(step)}
    ema = jax.tree.map(lambda x: x + 1, {"params": params, "extra": extra})
    return TrainState(jnp.int32(step), params, opt_state, extra, ema, jax.random.key(step))


def saved(folder, *steps_and_losses):
    with checkpoint.open_manager(folder) as manager:
        for step, loss in steps_and_losses:
            checkpoint.save(manager, state_at(step), {"pending": [{"loss": step / 3}]})
            if loss is not None:
                checkpoint.mark_evaluated(manager, step, loss)
        manager.wait_until_finished()


def restored(folder):
    with checkpoint.open_manager(folder) as manager:
        return checkpoint.restore(manager, jax.eval_shape(lambda: state_at(0)), lambda tree: tree)


def assert_same(got, want):
    got, want = (tree._replace(rng=jax.random.key_data(tree.rng)) for tree in (got, want))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def damage(folder, step):
    """Truncate every data file of a checkpoint's state."""
    files = [
        f
        for f in (folder / "checkpoints" / str(step) / "train").rglob("*")
        if f.is_file() and f.parent.name == "d"
    ]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_round_trip(tmp_path):
    saved(tmp_path, (3, None))
    got = restored(tmp_path)
    assert (got.step, got.notes, got.passed_over) == (3, {"pending": [{"loss": 1.0}]}, [])
    assert_same(got.state, state_at(3))


def test_notes_are_those_of_the_moment_of_saving(tmp_path):
    """They are written in the background, while the loop goes on filling its list."""
    pending = [{"loss": 1.0}] * 50_000
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, state_at(3), {"pending": pending})
        pending.append({"loss": jnp.float32(2.0)})
        checkpoint.wait(manager)
    assert restored(tmp_path).notes == {"pending": [{"loss": 1.0}] * 50_000}


def test_keeps_the_last_two_and_the_best(tmp_path):
    saved(tmp_path, (1, 0.5), (2, 0.3), (3, 0.4), (4, None))
    saved(tmp_path, (5, 0.6))  # another process goes on
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 4, 5]
    assert [checkpoint.restore_ema(tmp_path, which)[1] for which in ("last", "best", 4)] == [
        5,
        2,
        4,
    ]
    ema, _ = checkpoint.restore_ema(tmp_path, "best")
    jax.tree.map(np.testing.assert_array_equal, ema, state_at(2).ema)


def test_a_truncated_checkpoint_falls_back_and_says_why(tmp_path):
    saved(tmp_path, (1, None), (2, None))
    damage(tmp_path, 2)
    got = restored(tmp_path)
    assert (
        got.step == 1
        and len(got.passed_over) == 1
        and "checkpoint 2 could not be read" in got.passed_over[0]
    )
    assert_same(got.state, state_at(1))
    assert (tmp_path / "broken" / "2").is_dir()
    saved(tmp_path, (2, None))  # its place is free again
    assert restored(tmp_path).step == 2


def test_nothing_readable_is_an_error_that_keeps_the_files(tmp_path):
    saved(tmp_path, (1, None), (2, None))
    damage(tmp_path, 1)
    damage(tmp_path, 2)
    with pytest.raises(RuntimeError, match=r"no checkpoint in .* can be read") as error:
        restored(tmp_path)
    assert "checkpoint 1" in str(error.value) and "checkpoint 2" in str(error.value)
    assert (tmp_path / "checkpoints" / "1").is_dir() and (tmp_path / "checkpoints" / "2").is_dir()


def test_no_checkpoint_yet(tmp_path):
    assert restored(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no checkpoint 'last'"):
        checkpoint.restore_ema(tmp_path)
    with pytest.raises(FileNotFoundError, match="train there first"):
        checkpoint.restore_ema(tmp_path / "elsewhere")


def change(path, content):
    """Replace the only text `old` of a file by `new`. content: (old, new)."""
    text = path.read_text()
    assert text.count(content[0]) == 1
    path.write_text(text.replace(*content))


def test_numbers_that_were_changed_are_passed_over(tmp_path):
    """Files that can be read, and hold something else than what was saved."""
    saved(tmp_path, (1, None), (2, None))
    folder = tmp_path / "checkpoints"
    for item in ("train", "ema"):
        shutil.rmtree(folder / "2" / item)
        shutil.copytree(folder / "1" / item, folder / "2" / item)
        with pytest.raises(ValueError, match="2 is damaged") if item == "ema" else nullcontext():
            assert checkpoint.restore_ema(tmp_path)[1] == 2
    got = restored(tmp_path)
    assert got.passed_over == ["checkpoint 2 does not hold the numbers that were saved"]
    assert_same(got.state, state_at(1))


def test_notes_that_were_changed_are_passed_over(tmp_path):
    saved(tmp_path, (1, None), (3, None))
    change(tmp_path / "checkpoints" / "3" / "notes" / "metadata", ('"loss": 1.0', '"loss": 1.5'))
    (why,) = restored(tmp_path).passed_over
    assert why.startswith("checkpoint 3 could not be read (ValueError: its notes are not")


@pytest.mark.parametrize("damaged", ['{"lo', '{"loss": 0.1, "hash": "of 0.2"}', "[]", "", "null"])
def test_a_damaged_evaluation_does_not_rank(tmp_path, damaged):
    """Training repeats that of the newest checkpoint."""
    saved(tmp_path, (1, 0.3), (2, 0.2))
    (tmp_path / "checkpoints" / "2" / checkpoint.EVALUATION).write_text(damaged)
    assert checkpoint.restore_ema(tmp_path, "best")[1] == 1
    got = restored(tmp_path)
    assert (got.step, got.passed_over, got.evaluated) == (2, [], False)


def test_evaluated(tmp_path):
    """A loss that does not rank is an evaluation too; a step that is not saved has none."""
    saved(tmp_path, (1, None))
    assert not restored(tmp_path).evaluated
    with checkpoint.open_manager(tmp_path) as manager:
        for step in (1, 2):
            checkpoint.mark_evaluated(manager, step, None)
    assert restored(tmp_path).evaluated
    with pytest.raises(FileNotFoundError, match="no checkpoint 'best'; there are 1"):
        checkpoint.restore_ema(tmp_path, "best")


def test_a_checkpoint_before_0_2(tmp_path):
    """It has no checksums, and Orbax kept its loss."""
    saved(tmp_path, (1, None), (2, None))
    for step, loss in ((1, 0.5), (2, 0.6)):
        folder = tmp_path / "checkpoints" / str(step)
        notes = json.loads((folder / "notes" / "metadata").read_text())
        (folder / "notes" / "metadata").write_text(json.dumps({"pending": notes["pending"]}))
        (folder / "metrics").mkdir()
        (folder / "metrics" / "metrics").write_text(json.dumps({"loss": loss}))
    assert checkpoint.restore_ema(tmp_path, "best")[1] == 1
    got = restored(tmp_path)
    assert (got.step, got.notes, got.evaluated) == (2, {"pending": [{"loss": 2 / 3}]}, True)
    assert_same(got.state, state_at(2))
    (tmp_path / "checkpoints" / "1" / "metrics" / "metrics").write_text('{"lo')
    for use in (checkpoint.restore_ema, restored):
        with pytest.raises(ValueError, match=r"1/metrics/metrics is damaged \(.*\): delete it"):
            use(tmp_path)


def test_a_pickle_is_never_loaded(tmp_path):
    """A pickle in place of a checkpoint or frozen arrays is an error; its code does not run."""
    bomb = b"cposix\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "exploded").encode()
    saved(tmp_path, (1, None))
    for file in (tmp_path / "checkpoints" / "1" / "train").rglob("*"):
        if file.is_file():
            file.write_bytes(bomb)
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "abc.safetensors").write_bytes(bomb)
    with pytest.raises(RuntimeError, match="can be read"):
        restored(tmp_path)
    with pytest.raises(Exception, match=r"(?i)header|safetensor|deserializ"):
        load_frozen(tmp_path, "abc")
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_that_is_not_finite_is_passed_over(tmp_path):
    """Every resume would stop on the next step."""
    bad = state_at(2)
    bad.opt_state["model"][0].mu["b"] = bad.opt_state["model"][0].mu["b"].at[1].set(jnp.inf)
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, state_at(1), {})
        checkpoint.save(manager, bad, {})
    got = restored(tmp_path)
    assert got.step == 1
    assert got.passed_over == ["checkpoint 2 holds numbers that are not finite"]
    assert (tmp_path / "broken" / "2").is_dir()
    assert_same(got.state, state_at(1))
