"""The importers of convert/ are tried in turn."""

import json

from t2i_jax.convert.load import find_importer


def test_the_format_is_recognised(tmp_path):
    assert find_importer("") is None and find_importer(tmp_path) is None
    assert find_importer(tmp_path / "absent") is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    found = find_importer(str(tmp_path))
    assert found is not None and found.what == "a published language model"
