"""The rows, and what is said of those that cannot be measured."""

import numpy as np
import pytest

from t2i_jax.benchmark import reference, run
from t2i_jax.benchmark.rows import ROWS, chosen, find_side
from t2i_jax.core.registry import names_with


def test_chosen():
    assert chosen("", quick=False) == list(ROWS)
    assert "dit_small" in chosen("", quick=True) and "dit_s2" not in chosen("", quick=True)
    assert chosen("sampling,dit_s2,sampling", quick=True) == ["sampling", "dit_s2"]
    with pytest.raises(ValueError, match=r"no row 'dit_smal'.*dit_small, dit_s4.*did you mean"):
        chosen("dit_s2,dit_smal", quick=False)


def test_sides_and_twins_exist():
    for row in ROWS.values():
        assert not row.twin or row.twin in names_with("benchmark/twins", "make")
        for side in row.sides.values():
            folder, module = side.partition(":")[0].split(".")
            assert module in names_with(f"benchmark/{folder}", "prepare")
    assert callable(find_side(ROWS["sampling"], "calls"))


def test_configs():
    """What is measured is what the table says."""
    configs = {name: ROWS[name].config() for name in ("dit_s4", "unet", "decoding", "vqgan")}
    assert (configs["dit_s4"].model.width, configs["dit_s4"].train.batch_size) == (384, 16)
    assert tuple(configs["unet"].model.multipliers) == (1, 2, 2)
    assert configs["decoding"].sample.guidance == 1.25
    assert configs["vqgan"].data.resolution == 64
    for config in configs.values():
        assert config.optim.name == "adamw" and config.optim.clip == 1.0


def test_without_torch(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "is_installed", lambda package: False)
    with pytest.raises(ValueError, match=r'dit_s4 is compared .* "t2i_jax\[bench\]"'):
        run.benchmark("sampling,dit_s4", tmp_path / "out", quick=False)
    assert not (tmp_path / "out").exists()
    run.require_torch({"sampling": ROWS["sampling"]})


def test_a_row_that_fails_does_not_end_the_others(monkeypatch, tmp_path):
    """Nor does one whose package is missing."""
    monkeypatch.setattr(run.interleave, "command_of", lambda *_: ["false"])
    monkeypatch.setattr(run, "is_installed", lambda package: True)
    text = run.benchmark("sampling,decoding", tmp_path, quick=True)
    assert "Not measured: `sampling`" in text and "`decoding`" in text
    assert "the process of sampling ended (exit code 1)" in text
    monkeypatch.setattr(run, "is_installed", lambda package: False)
    monkeypatch.setitem(ROWS, "start", ROWS["start"]._replace(packages=("nothing",)))
    assert run.measure("start", 1)["skipped"] == "needs nothing"


def test_reference(tmp_path):
    arrays = {"params": {"a": {"b": np.arange(3.0)}}, "output": np.ones(2), "inputs": {}}
    reference.save(tmp_path, {"family": "gan"}, arrays)
    config, found = reference.load(tmp_path)
    assert config == {"family": "gan"}
    np.testing.assert_array_equal(found["params"]["a"]["b"], np.arange(3.0))


def test_agreement_is_relative_to_the_largest_number():
    expected = np.array([0.0, -100.0])
    found = expected + np.array([0.009, 0.0])
    assert reference.require_agreement(found, expected, "x") == pytest.approx(9e-5)
    with pytest.raises(ValueError, match=r"x gives another output .* 2.0e-04 .* 1e-04 is allowed"):
        reference.require_agreement(expected + 0.02, expected, "x")
    with pytest.raises(ValueError, match="another output"):
        reference.require_agreement(np.array([np.nan, 0.0]), expected, "x")
    with pytest.raises(ValueError, match=r"of shape \(1,\), ours \(2,\)"):
        reference.require_agreement(found[:1], expected, "x")
