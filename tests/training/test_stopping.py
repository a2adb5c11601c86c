"""A signal ends what can be done again, but nothing in the middle that has to be whole."""

import os
import signal

import pytest

from t2i_jax.training.stopping import catch_signals, end_early


@pytest.fixture
def stop():
    """The list of signals that came."""
    names, release = catch_signals()
    yield names
    release()


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_block_at_once(stop, name):
    done = []
    with end_early():
        done.append("before")
        send(signal.Signals[name])
        done.append("after")
    assert done == ["before"] and stop == [name]


def test_what_has_to_be_whole_is_done_first(stop):
    done = []
    with end_early() as whole:
        with whole():
            send()
            done.append("whole")
        done.append("after")
    assert done == ["whole"] and stop == ["SIGTERM"]


def test_without_a_signal_nothing_ends(stop):
    done = []
    with end_early() as whole:
        with whole():
            done.append("whole")
        done.append("after")
    assert done == ["whole", "after"] and stop == []


def test_after_a_whole_part_a_signal_ends_the_block_again(stop):
    done = []
    with end_early() as whole:
        with whole():
            done.append("whole")
        send()
        done.append("after")
    assert done == ["whole"] and stop == ["SIGTERM"]


def test_an_error_in_a_whole_part_is_not_hidden_by_a_signal(stop):
    with pytest.raises(KeyError), end_early() as whole, whole():
        send()
        raise KeyError
    assert stop == ["SIGTERM"]
