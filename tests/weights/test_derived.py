"""Arrays under other names: nothing is read before it is asked for."""

import numpy as np
import pytest

from t2i_jax.weights.derived import DerivedArrays, Source, renamed


class Counted(dict):
    """A dict that notes what was read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.reads = []

    def __getitem__(self, name):
        self.reads.append(name)
        return super().__getitem__(name)


def test_one_array_at_a_time():
    stored = Counted({"both": np.arange(4.0)})
    halves = {f"half_{i}": Source("both", lambda a, i=i: np.split(a, 2)[i]) for i in range(2)}
    arrays = DerivedArrays(stored, halves)
    assert list(arrays) == ["half_0", "half_1"] and len(arrays) == 2 and not stored.reads
    np.testing.assert_array_equal(arrays["half_1"], [2.0, 3.0])
    assert stored.reads == ["both"]
    with pytest.raises(KeyError):
        arrays["both"]


def test_two_arrays_do_not_get_one_name():
    assert renamed({"a": np.ones(2)}, str.upper)["A"].sum() == 2
    with pytest.raises(ValueError, match="a and A are both A"):
        renamed({"a": np.ones(1), "A": np.ones(1)}, str.upper)
