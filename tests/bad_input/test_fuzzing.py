"""Random bad input: it is refused in one line, or does exactly what it says.

The examples are the same in every run. `T2I_JAX_FUZZ=20` takes 20 times as many.
"""

import ast
import copy
import json
import math
import os
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from t2i_jax import config as configs
from t2i_jax import pipeline
from t2i_jax.commands import UserError
from t2i_jax.config.defaults import complete, keys_of
from t2i_jax.core.settings import flatten
from t2i_jax.runs.run_folder import CHANGEABLE, FREE, read_run, read_variables
from t2i_jax.text.prompt_file import read_prompts
from tests.bad_input.command import OVERRIDES, SHAPES, check_one_line, put_metadata

TIMES = int(os.environ.get("T2I_JAX_FUZZ", "1"))


def examples(count):
    """Return the settings of hypothesis."""
    return settings(
        max_examples=count * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def ends_well(call, *arguments):
    """Return what a call returns, or None if it is refused in one line. Anything else is raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(*arguments)
    except UserError as error:
        assert type(error).__name__ != "JaxRuntimeError"
        check_one_line(str(error))
        result = None
    event("refused" if result is None else "accepted")  # for --hypothesis-show-statistics
    return result


CONFIG = configs.load(SHAPES, OVERRIDES)
# An override of these brings other fields.
SELECT = ("family", "model.network", "model.variant", "text.encoder", "data.name")
KEYS = sorted(keys_of(complete(CONFIG.to_dict())[1]))
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 1, 2**31, 2**32, 2**63, 10**30, 10**400, 1e308, math.inf, math.nan]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
VALUES = st.one_of(
    NUMBERS.map(repr),
    st.text(max_size=12),
    JSON.map(repr),
    st.sampled_from(
        ["", "True", "false", "None", "()", "(1,)", "{}", "[", "1e999", "0x10", "1_000", "=", "'"]
    ),
)


@examples(200)
@given(
    key=st.one_of(
        st.sampled_from(KEYS),
        st.text(max_size=12),
        st.tuples(st.sampled_from(KEYS), st.text("abc._=", max_size=4)).map("".join),
    ),
    value=VALUES,
)
def test_an_override_is_refused_or_is_what_the_config_holds(key, value):
    config = ends_well(configs.load, SHAPES, [*OVERRIDES, f"{key}={value}"])
    if config is None:
        return
    key, _, value = f"{key}={value}".partition("=")
    before, after = flatten(CONFIG), flatten(config)
    changed = {name for name in before if plain(after.get(name)) != plain(before[name])}
    others = {name for name in changed if not f"{name}.".startswith(f"{key}.")}
    assert not others or key in SELECT, others
    held = config
    for name in key.split("."):
        held = held[name]
    held = held.to_dict() if hasattr(held, "to_dict") else held
    if isinstance(held, str):
        assert held == value
    elif isinstance(held, bool):
        assert str(held).lower() == value.lower()
    elif isinstance(held, float):
        assert held == float(value)
    else:
        assert plain(held) == plain(ast.literal_eval(value))


def plain(value):
    """Return nested data as text, in which lists and tuples are equal, and 1 and 1.0."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    is_number = type(value) in (int, float) and abs(value) < 2**53
    return repr(float(value)) if is_number else repr(value)


@examples(150)
@given(texts=st.lists(st.text(max_size=20), max_size=4))
def test_any_texts_as_overrides(texts):
    """What has no "=", no known key, or no value is refused."""
    config = ends_well(configs.load, SHAPES, [*OVERRIDES, *texts])
    assert config is None or config.to_dict() == CONFIG.to_dict() or any("=" in t for t in texts)


def places_in(value, path=()):
    """Yield the path of every value in nested dicts and lists."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places_in(inner, (*path, key))


@st.composite
def edits(draw, original):
    """Draw a copy of nested data in which one value is changed, deleted or added."""
    path = draw(st.sampled_from(list(places_in(original))))
    kind, new = draw(st.sampled_from(["change", "delete", "add"])), draw(JSON)
    edited = copy.deepcopy(original)
    if not path:
        return new if kind == "change" else edited
    inside = edited
    for key in path[:-1]:
        inside = inside[key]
    if kind == "change":
        inside[path[-1]] = new
    elif kind == "delete":
        del inside[path[-1]]
    elif isinstance(inside, dict):
        inside[draw(st.text(max_size=8))] = new
    else:
        inside.insert(path[-1], new)
    return edited


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A copy of the run, and what its run.json holds."""
    folder = shutil.copytree(trained / "run", tmp_path_factory.mktemp("fuzz") / "run")
    return folder, json.loads((folder / "run.json").read_text())


def test_an_edited_run_json_is_refused_or_gives_what_it_says(run, loaded, monkeypatch):
    """The weights are read once: they are the same in all examples."""
    folder, original = run
    variables = read_variables(folder)
    monkeypatch.setattr("t2i_jax.runs.trained.read_variables", lambda workdir, which: variables)

    @examples(150)
    @given(data=st.data())
    def check(data):
        edited = data.draw(edits(original))
        (folder / "run.json").write_text(json.dumps(edited))
        pipe = ends_well(pipeline.load, folder)
        if pipe is None:
            return
        before, now = flatten(original["config"]), flatten(edited["config"])
        differ = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
        assert all(key.startswith((*FREE, *CHANGEABLE, "train.", "optim.")) for key in differ)
        held = flatten(pipe.config.to_dict())
        assert [key for key in now if key not in held or plain(held[key]) != plain(now[key])] == []
        assert pipe.weights == loaded.weights
        for name in ("model", "text", "data", "first_stage", "image_tokenizer"):
            assert flatten(pipe.config[name]) == flatten(loaded.config[name])

    check()


@examples(150)
@given(content=st.one_of(st.binary(max_size=200), JSON.map(lambda x: json.dumps(x).encode())))
def test_any_content_of_run_json(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "run.json").write_bytes(content)
    assert ends_well(read_run, folder) is None


def test_metadata_of_a_picture(loaded, tmp_path):
    """It is refused, or the picture is drawn as it says and keeps it."""
    original = json.loads(loaded("a red circle", num=3, seed=7).images[2].info["t2i_jax"])
    size = loaded.config.data.resolution

    @examples(100)
    @given(told=st.one_of(edits({**original, "config": {}}), JSON))
    def check(told):
        path = tmp_path / "x.png"
        Image.new("RGB", (size, size)).save(path)
        put_metadata(path, json.dumps(told))
        found = ends_well(loaded.redraw, path)
        if found is None:
            return
        assert plain(json.loads(found[0].info["t2i_jax"])) == plain(told)
        index = np.full(4, told["index"])
        alone = loaded.draw_rows([told["prompt"]] * 4, index, told["seed"], **told["settings"])
        assert found[0].tobytes() == alone[0].tobytes()

    check()


@examples(60)
@given(text=st.text(max_size=100))
def test_any_text_as_metadata(loaded, tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "x.png"
    Image.new("RGB", (4, 4)).save(path)
    assume("\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text))
    put_metadata(path, text)
    assert ends_well(loaded.redraw, path) is None


@examples(40)
@given(data=st.data())
def test_any_bytes_of_a_picture(loaded, tmp_path_factory, data):
    """Some bytes of a drawn picture are others: it is refused, or the same picture is drawn."""
    path = tmp_path_factory.getbasetemp() / "y.png"
    loaded("a red circle", seed=7).images[0].save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    ends_well(loaded.redraw, path)


def encoded(text):
    """Return a text as UTF-8; lone surrogates become bytes that are not."""
    return text.encode("utf-8", "surrogatepass")


@examples(200)
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(encoded)))
def test_any_bytes_of_a_prompts_file(tmp_path_factory, content):
    """It is refused, or each line that is not blank is a prompt, in its order."""
    path = tmp_path_factory.getbasetemp() / "p.txt"
    path.write_bytes(content)
    prompts = ends_well(read_prompts, path)
    if prompts is not None:
        lines = content.decode().removeprefix("\ufeff").splitlines()
        assert prompts == [line.strip() for line in lines if line.strip()] and prompts


@examples(20)
@given(prompt=st.text(alphabet=st.characters(), max_size=30))
def test_any_prompt(loaded, tmp_path_factory, prompt):
    """It is refused, or its picture keeps it and can be drawn again from its file."""
    drawn = ends_well(loaded, prompt)
    if drawn is None:
        assert any("\ud800" <= c <= "\udfff" for c in prompt)
        return
    folder = tmp_path_factory.mktemp("drawn")
    (path,) = drawn.save(folder)
    image, same = loaded.redraw(path)
    assert same and json.loads(image.info["t2i_jax"])["prompt"] == prompt
