"""Config files: variants, arguments, and files that are no configs."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_jax import config as configs
from t2i_jax.config.files import read

ROOT = Path(__file__).parent.parent.parent
FILES = sorted(str(path) for path in (ROOT / "configs").glob("*.py"))
CONFIG = """'''A test.'''

from t2i_jax.config import base


def get_config():
    config = base()
    config.family = "diffusion"
    config.data = {"name": "shapes", "resolution": 32}
    config.model = {"network": "dit"}
    return config


def small(config):
    '''A small one.'''
    config.model.width = 8


def brief(config):
    '''A short one.'''
    config.train.steps = 2 if config.model.get("width") == 8 else 3


VARIANTS = (small, brief)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "c.py"
    path.write_text(CONFIG)
    return str(path)


def test_variants_are_applied_in_turn(file):
    assert configs.load(file).train.steps == 1000
    assert configs.load(f"{file}:brief").train.steps == 3
    both = configs.load(f"{file}:small_brief")
    assert (both.model.width, both.train.steps) == (8, 2)
    assert configs.load(f"{file}:brief_small").train.steps == 3


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("smal", "c.py has no variant 'smal': it has small, brief; did you mean 'small'"),
        ("small_brif", "no variant 'brif'.*did you mean 'brief'"),
        ("x", "no variant 'x': it has small, brief$"),
        ("small_", "no variant ''"),
    ],
)
def test_an_unknown_variant_is_refused(file, variant, message):
    with pytest.raises(ValueError, match=message):
        configs.load(f"{file}:{variant}")


def test_a_file_without_variants_refuses_every_argument(tmp_path):
    file = tmp_path / "c.py"
    file.write_text(CONFIG.replace("VARIANTS =", "NAMES ="))
    with pytest.raises(ValueError, match=r"c\.py has no variants, and 'small' is asked for"):
        configs.load(f"{file}:small")


def test_a_file_can_take_an_argument(tmp_path):
    file = tmp_path / "c.py"
    text = CONFIG.replace("get_config():", "get_config(argument=''):")
    text = text.replace('"network": "dit"', '"network": "dit", "width": len(argument) or 4')
    file.write_text(text + 'ARGUMENT = "a text of any length"\n')
    assert configs.load(str(file)).model.width == 4
    assert configs.load(f"{file}:ab:c_d").model.width == 6
    assert configs.load(f"{file}:small").model.width == 8


def test_the_folder_of_a_language_model(tmp_path):
    file, sizes = f"{ROOT}/configs/shapes_llm.py", "vocab_size n_embd n_layer n_head n_positions"
    numbers = dict(zip(sizes.split(), (300, 32, 2, 2, 64), strict=True))
    (tmp_path / "config.json").write_text(str({"model_type": "gpt2", **numbers}).replace("'", '"'))
    config = configs.load(f"{file}:{tmp_path}")
    assert config.init_from == str(tmp_path)
    assert (config.text.positions, config.model.width, config.model.block.norm) == (64, 32, "layer")
    message = r"no config\.json in smok: .* takes the folder .* did you mean 'smoke'"
    with pytest.raises(FileNotFoundError, match=message):
        configs.load(f"{file}:smok")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"c\.py is not a config: it defines no get_config\(\)"),
        ("get_config = 3\n", r"defines no get_config"),
        ("def get_config():\n    pass\n", r"get_config\(\) returns NoneType; it must return"),
        ("def get_config():\n    return {}\n", r"returns dict"),
        (CONFIG.replace("family", "fam"), r"get_config\(\) sets no config\.family"),
        (CONFIG.replace("config.data =", "config.date ="), r"sets no config\.data\.name"),
        ("def get_config(:\n", r"c\.py cannot be run: SyntaxError: .*line 1"),
        ("import no_such_module\n", r"cannot be run: ModuleNotFoundError: .*no_such_module"),
        ("raise SystemExit('a\\nb')\n", r"cannot be run: SystemExit: a$"),
        (CONFIG.replace("    return", "    config.ema_deacy = 0.9\n    return"), "'ema_decay'"),
        (CONFIG.replace('"dit"', '"dit", "widht": 8'), r"widht' \(set by the config file\).*width"),
        (
            CONFIG.replace("config.model =", "config.model = 3 or"),
            r"families/diffusion\.py needs",
        ),
        (CONFIG.replace("config.data =", "config.optim = 3; config.data ="), r"raises TypeError"),
        (CONFIG.replace('"diffusion"', '"difusion"'), r"no 'difusion' in families.*'diffusion'"),
        (CONFIG.replace('"dit"', '"dot"'), r"there is no 'dot' in models"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        configs.load(str(tmp_path / "c.py"))
    assert "\n" not in str(error.value)


def test_what_is_not_a_python_file_is_refused(tmp_path, file):
    with pytest.raises(ValueError, match=r"README\.md is not a config: that is a Python file"):
        configs.load(f"{ROOT}/README.md")
    with pytest.raises(ValueError, match=r"is a folder, not a config file; there are .*c\.py"):
        configs.load(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no config file '.*d\.py'; there are .*c\.py"):
        configs.load(str(tmp_path / "d.py"))


def test_lists_become_tuples_and_whole_numbers_floats(tmp_path):
    path = tmp_path / "c.py"
    text = CONFIG.replace('"dit"', '"unet", "multipliers": [1, 2]')
    path.write_text(text.replace("    return", "    config.sample = {'guidance': 3}\n    return"))
    config = configs.load(str(path))
    assert config.model.multipliers == (1, 2)
    assert config.sample.guidance == 3.0 and isinstance(config.sample.guidance, float)


def test_defaults_of_family_encoder_and_data_are_filled_in(file):
    config = configs.load(file)
    assert config.sample.rescale == 0.0 and config.diffusion.time == "logit_normal"
    assert config.data.scenes == 0 and config.text.dtype == "float32"
    assert (config.model.width, config.model.qk_norm) == (384, True)


def test_a_variant_of_the_network_gives_the_defaults(file):
    config = configs.load(f"{file}:small", ["model.variant=B/4"])
    assert (config.model.depth, config.model.patch, config.model.width) == (12, 4, 8)


def test_a_loaded_config_is_locked(file):
    with pytest.raises(AttributeError, match="learning_rate"):
        configs.load(file).optim.learning_rat = 3


def experiments():
    for file in FILES:
        names = list(read(file).variants)
        yield file
        yield from (f"{file}:{name}" for name in names)
        yield from (f"{file}:{name}_smoke" for name in names if name != "smoke")


@pytest.mark.parametrize("spec", experiments(), ids=lambda spec: Path(spec).name)
def test_every_experiment_is_complete_and_survives_json(spec):
    config = configs.load(spec)
    assert configs.from_json(configs.to_json(config)) == config
    known = {key for key, _, meaning in configs.describe(config) if meaning}
    unknown = {key for key, _, _ in configs.describe(config)} - known
    # A section of another family's settings is not described.
    assert {key.partition(".")[0] for key in unknown} <= {"discriminator", "image_tokenizer"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file).name)
def test_every_file_and_variant_says_what_it_is(file):
    found = read(file)
    text = Path(file).read_text()
    assert f"python main.py train --config=configs/{Path(file).name}" in text
    assert found.title.endswith((".", "..."))
    assert "smoke" in found.variants
    for variant in found.variants.values():
        assert (variant.__doc__ or "").partition("\n")[0].endswith((".", ")."))


def test_loading_a_smoke_variant_twice_gives_the_same():
    """Recipes are shared by all files: a variant must not change them."""
    before = configs.load(f"{ROOT}/configs/shapes.py")
    for file in itertools.islice(FILES, 8):
        configs.load(f"{file}:smoke")
    assert configs.load(f"{ROOT}/configs/shapes.py") == before


def test_a_wrong_name_is_refused_before_jax_is_imported():
    """Importing JAX and a family takes seconds."""
    script = f"""
import sys
from t2i_jax import config as configs
for spec, override in (
    ("configs/shapes.py", "optim.lr=3"),
    ("configs/shapes.py", "modle.width=3"),
    ("configs/shapes.py", "lerning_rate=3"),
    ("configs/shapes.py", "train.steps=many"),
    ("configs/shapes.py:smok", "seed=1"),
    ("README.md", "seed=1"),
):
    try:
        configs.load(f"{ROOT}/{{spec}}", [override])
    except ValueError:
        continue
    raise SystemExit(f"{{spec}} {{override}} was accepted")
print([name for name in ("jax", "flax", "optax", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
