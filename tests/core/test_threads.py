"""The number of threads follows the cores that the process may use."""

from t2i_jax.core.threads import num_threads


def test_threads_are_those_of_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    assert num_threads() == 3
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(99)), raising=False)
    assert num_threads() == 16
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert num_threads() == 1
