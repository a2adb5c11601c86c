"""The contract of a measure, held by every file of evaluation/measures/."""

import pytest

from t2i_jax.evaluation.measure import check_names, collect, load_measures
from t2i_jax.evaluation.report.table import all_columns
from tests.conftest import ROOT

FOLDER = ROOT / "t2i_jax" / "evaluation" / "measures"


def test_every_file_is_a_measure_of_its_name():
    files = {file.stem for file in FOLDER.glob("*.py")} - {"__init__"}
    assert load_measures().keys() == files and len(files) >= 9
    for name, measure in load_measures().items():
        assert measure.name == name and callable(measure.run)


def test_measures_and_columns_have_places_of_their_own():
    for records in (load_measures().values(), all_columns()):
        orders = [record.order for record in records]
        assert orders == sorted(set(orders))


def test_the_columns_of_the_table():
    assert [column.title for column in all_columns()] == [
        "strict",
        "exact",
        "compositional",
        "class accuracy",
        "classes missing",
        "GenEval",
        "dB over bicubic",
        "dB over untranslated",
        "under noise",
        "inpainted",
        "variations",
        "word maps",
        "own R@1",
        "R@5",
        "KID x 1000",
        "precision",
        "recall",
        "diversity",
        "membership",
        "planted",
        "minutes",
        "parameters, M",
        "GFLOP a picture",
        "ms a picture",
        "ms alone",
        "images/s training",
    ]


def test_an_unknown_name_is_refused():
    check_names(tuple(load_measures()))
    with pytest.raises(ValueError, match="no measure 'fidelty': there are alignment, compos"):
        check_names(("alignment", "fidelty"))


def test_parts_that_cannot_be_measured_are_listed():
    def refuse():
        raise ValueError("too few")

    report = collect({"a": lambda: 1, "b": refuse})
    assert report == {"a": 1, "refused": {"b": "too few"}}
    with pytest.raises(ValueError, match=r"^too few$"):
        collect({"a": refuse, "b": refuse})
