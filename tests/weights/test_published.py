"""Published names: what is read is what was written, and every array is accounted for."""

import jax
import numpy as np
import pytest

from t2i_jax.weights.published import LAYOUTS, Published, read_params, write_arrays

PLACES = {
    ("in", "kernel"): Published("first.weight", "conv"),
    ("in", "bias"): Published("first.bias", "same"),
    ("mix", "kernel"): Published("mix.weight", "pointwise"),
    ("out", "kernel"): Published("last.weight", "linear"),
}


def _params():
    r = np.random.default_rng(0)
    return {
        "in": {"kernel": r.normal(size=(3, 2, 4, 5)), "bias": r.normal(size=5)},
        "mix": {"kernel": r.normal(size=(5, 6))},
        "out": {"kernel": r.normal(size=(6, 7))},
    }


def _shapes():
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, np.float32), _params())


def test_reading_is_the_inverse_of_writing():
    params = _params()
    arrays = write_arrays(params, PLACES.__getitem__)
    assert {name: a.shape for name, a in arrays.items()} == {
        "first.weight": (5, 4, 3, 2),
        "first.bias": (5,),
        "mix.weight": (6, 5, 1, 1),
        "last.weight": (7, 6),
    }
    assert arrays["first.weight"][4, 3, 2, 1] == params["in"]["kernel"][2, 1, 3, 4]
    back = read_params(arrays, _shapes(), PLACES.__getitem__, "the file")
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(a.astype(np.float32), b)
        assert b.dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("mix.weight"), r"1 missing \(mix.weight\)"),
        (lambda a: a.update(more=np.ones(3)), r"1 not used \(more\)"),
        (lambda a: a.update({"first.bias": np.ones(4)}), r"first.bias is \[4\].* \[5\]"),
    ],
    ids=["missing", "left over", "other shape"],
)
def test_what_does_not_fit_is_named(change, message):
    arrays = write_arrays(_params(), PLACES.__getitem__)
    change(arrays)
    with pytest.raises(ValueError, match=f"the file .*{message}"):
        read_params(arrays, _shapes(), PLACES.__getitem__, "the file")


def test_an_array_may_be_ignored_by_name():
    arrays = write_arrays(_params(), PLACES.__getitem__) | {"positions_ids": np.arange(3)}
    read_params(
        arrays, _shapes(), PLACES.__getitem__, "the file", lambda name: name.endswith("_ids")
    )


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"two parameters .* first"):
        write_arrays({"a": np.ones(1), "b": np.ones(1)}, lambda path: Published("first", "same"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_their_own_inverse(layout):
    theirs = np.random.default_rng(0).normal(size=(5, 4, 1, 1))
    theirs = theirs[:, :, 0, 0] if layout == "linear" else theirs
    found = LAYOUTS[layout].to_theirs(LAYOUTS[layout].to_ours(theirs))
    np.testing.assert_array_equal(found, theirs)
