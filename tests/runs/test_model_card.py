"""The model card says what run.json and the reports say, and an edited one stays."""

import pytest
from ml_collections import ConfigDict

from t2i_jax import config as configs
from t2i_jax.data.load import licence_of
from t2i_jax.runs.model_card import OURS, card, write_card
from tests.conftest import ROOT

CAPTIONER = ("caption", "log_prob")


@pytest.fixture(scope="module")
def config():
    return configs.load(f"{ROOT}/configs/shapes.py:smoke", ["init_from=runs/before"])


def test_the_text(config):
    text = card("mine", config, ["sample", "reconstruct"], {"test": "exact 0.5"})
    front, _, rest = text.removeprefix("---\n").partition("\n---\n")
    assert front.splitlines() == [
        "library_name: t2i_jax",
        "pipeline_tag: text-to-image",
        "tags: [jax, flax, autoregressive]",
        "license: other",
    ]
    assert "# mine\n" in rest and "It can reconstruct, sample, with pictures of 32 x 32" in rest
    assert "6 steps of 8 pictures. It started from `runs/before`." in rest
    assert "The source `shapes`. Licence: Apache-2.0" in rest
    assert "On `test`:\n\n```\nexact 0.5\n```" in rest and "Not measured yet" not in rest
    program = rest.partition("```python\n")[2].partition("```")[0]
    compile(program, "the card", "exec")
    assert 't2i_jax.load("mine")' in program and "pipe.reconstruct(" in program
    assert "pipe.caption" not in program


def test_of_a_captioner_without_scores(config):
    text = card("mine", config, list(CAPTIONER), {})
    assert "pipeline_tag: image-to-text" in text
    assert "Not measured yet: `t2i-jax evaluate --workdir=mine`." in text


def test_an_edited_card_stays(config, tmp_path):
    path = tmp_path / "README.md"
    write_card(tmp_path, config, CAPTIONER)
    write_card(tmp_path, config, CAPTIONER, {"test": "new"})
    assert "new" in path.read_text() and f"# {tmp_path.name}\n" in path.read_text()
    path.write_text(path.read_text().replace(OURS, "mine"))
    write_card(tmp_path, config, CAPTIONER, {"test": "newer"})
    assert "mine" in path.read_text() and "newer" not in path.read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [("fashion_mnist", "MIT"), ("emoji", "ATTRIBUTION.md"), ("folder", "not known")],
)
def test_licences(name, says):
    assert says in licence_of(ConfigDict({"name": name}))
