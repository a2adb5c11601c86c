"""The watchdog: it names a stage that lasts too long, once, and no other."""

import contextlib
import time

import pytest

from t2i_jax.training.watchdog import Watchdog


def wait_for(text: str, capfd) -> str:
    """Return what was printed to stderr as soon as `text` is in it, or after 10 s."""
    printed, began = "", time.monotonic()
    while text not in printed and time.monotonic() - began < 10:
        time.sleep(0.02)
        printed += capfd.readouterr().err
    return printed


def test_a_stage_that_lasts_is_named_once(capfd):
    with contextlib.closing(Watchdog(limit_s=0.1)) as dog:
        dog.enter("step 3")
        printed = wait_for("in wait_for", capfd)
        assert "process 0 of 1 on " in printed and "has been at step 3 for 0 s" in printed
        time.sleep(0.3)
        assert "step 3" not in capfd.readouterr().err


def test_the_stage_before_goes_on(capfd):
    with contextlib.closing(Watchdog(limit_s=0.1)) as dog:
        dog.enter("step 3")
        with dog.inside("the evaluation of step 3"):
            assert "the evaluation of step 3" in wait_for("evaluation", capfd)
        assert dog.stage == "step 3"


@pytest.mark.parametrize("limit_s", [0, 60])
def test_nothing_is_said_without_a_limit_or_below_it(limit_s, capfd):
    with contextlib.closing(Watchdog(limit_s)) as dog:
        for step in range(20):
            dog.enter(f"step {step}")
            time.sleep(0.005)
    assert not capfd.readouterr().err
