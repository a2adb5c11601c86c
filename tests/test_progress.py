"""Who watches drawing hears each step once, and sees the pictures as they become."""

import dataclasses

import jax
import numpy as np
import pytest

import t2i_jax
from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.core.progress import watch
from tests.conftest import ROOT, write_untrained_run

STEPS = 4


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("progress") / "run"
    overrides = [f"sample.steps={STEPS}"]
    write_untrained_run(
        configs.load(f"{ROOT}/configs/shapes_diffusion.py:smoke", overrides), workdir
    )
    pipe, rng = t2i_jax.load(workdir), np.random.default_rng(0)

    def moved(x):  # an untrained network predicts 0
        return x + rng.normal(0, 0.1, x.shape).astype(np.float32)

    params = jax.tree.map(moved, pipe.variables.params)
    return dataclasses.replace(pipe, variables=pipe.variables._replace(params=params))


def arrays(drawn):
    return np.stack([np.asarray(image) for image in drawn.images])


def test_each_step_is_told_once_and_the_last_preview_is_the_picture(pipe):
    heard = []
    drawn = pipe("a", num=3, seed=1, sampler="euler", progress=heard.append, previews=2)
    assert [p.step for p in heard] == [1, 2, 3, 4] and {p.steps for p in heard} == {STEPS}
    assert [p.images is None for p in heard] == [True, False, True, False]
    # The step to t = 0 ends at its own prediction of x0.
    np.testing.assert_array_equal(heard[-1].images, arrays(drawn))
    assert heard[1].images.shape == (3, 32, 32, 3) and (heard[1].images != arrays(drawn)).any()


def test_a_sampler_with_two_calls_a_step_tells_each_step_once(pipe):
    heard = []
    pipe("a", sampler="heun", progress=heard.append)
    assert [p.step for p in heard] == [1, 2, 3, 4]


def test_a_watched_picture_is_the_same_and_can_be_drawn_again(pipe, tmp_path):
    alone = arrays(pipe("a large red circle", num=3, seed=2)).astype(int)
    drawn = pipe("a large red circle", num=3, seed=2, progress=lambda p: None, previews=1)
    assert np.abs(arrays(drawn) - alone).max() <= 1  # another program may round differently
    for path in drawn.save(tmp_path):
        assert pipe.redraw(path)[1]


def test_another_function_and_another_number_of_previews_compile_nothing(pipe):
    pipe("a", progress=print)
    before = pipeline.run_ability._cache_size()
    pipe("b", progress=lambda p: None, previews=3)
    assert pipeline.run_ability._cache_size() == before


def test_each_batch_begins_at_step_1(pipe):
    heard = []
    with watch(heard.append):
        pipe.draw(["a"] * 5, batch=4)
    assert [p.step for p in heard] == [1, 2, 3, 4] * 2


def test_an_edit_tells_the_steps_that_are_left(pipe):
    heard, image = [], np.zeros((32, 32, 3), np.uint8)
    drawn = pipe.edit("a", image, strength=0.5, progress=heard.append, previews=1)
    assert [(p.step, p.steps) for p in heard] == [(1, 2), (2, 2)]
    np.testing.assert_array_equal(heard[-1].images, arrays(drawn))
    heard.clear()
    pipe.inpaint("a", image, np.ones((32, 32), bool), progress=heard.append)
    assert [(p.step, p.steps) for p in heard] == [(i, 4) for i in (1, 2, 3, 4)]


def test_an_error_of_the_function_ends_the_call(pipe):
    calls = []

    def fail(progress):
        calls.append(progress)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        pipe("a", progress=fail)
    assert len(calls) == 1 and len(pipe("a").images) == 1  # and the next call is as ever


def test_a_negative_number_of_previews_is_refused(pipe):
    with pytest.raises(ValueError, match="previews"):
        pipe("a", progress=print, previews=-1)
