"""What README.md and docs/ say is so: programs run, commands are accepted, links lead somewhere.

acceptance/test_commands.py runs the commands.
"""

import ast
import importlib
import importlib.util
import re
import shlex
import sys

import pytest

from t2i_jax import cli
from t2i_jax import config as configs
from t2i_jax.core.family import ABILITIES
from t2i_jax.core.registry import names_with
from t2i_jax.families.load import load_family
from tests.conftest import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
DECODERS = ("shapes_diffusion", "shapes_code_diffusion")  # with an embedder: docs/unclip.md
FAMILY_PAGE = ROOT / "docs" / "add_a_family.md"


def blocks(page, language: str) -> list[tuple[str, str]]:
    """Return (title, code) of each code block of a language; the title may be ""."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf'```{language}(?: title="([^"]+)")?\n(.*?)```', text, re.DOTALL)


def commands(page) -> list[list[str]]:
    """Return the arguments of each `python main.py` in the page's shell blocks."""
    lines = [line for _, code in blocks(page, "bash") for line in code.splitlines()]
    return [
        shlex.split(line, comments=True)[2:] for line in lines if line.startswith("python main.py")
    ]


def functions_of_the_page_test() -> list[str]:
    tree = ast.parse(dict(blocks(FAMILY_PAGE, "python"))["test_imle.py"])
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder that docs/add_a_family.md describes, as the working folder."""
    for title, code in blocks(FAMILY_PAGE, "python"):
        path = tmp_path / title
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_project", "test_imle")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", functions_of_the_page_test())
def test_the_test_of_the_new_family(name, project):
    module = importlib.import_module("test_imle")
    getattr(module, name)()


def test_its_fields_are_checked(project):
    """As those of a family of the project are: an unknown one is refused, naming the nearest."""
    spec = "my_project/shapes_imle.py:smoke"
    assert configs.load(spec, ["imle.candidates=5"]).imle.candidates == 5
    assert configs.load(spec).sample.temperature == 1.0  # a default that the config does not set
    with pytest.raises(ValueError, match=r"did you mean 'imle\.candidates'"):
        configs.load(spec, ["imle.candidate=5"])
    with pytest.raises(ValueError, match="at least 1"):
        configs.load(spec, ["imle.candidates=0"])
    with pytest.raises(ValueError, match=r"no module 'my_project\.imlee'"):
        configs.load(spec, ["family=my_project.imlee"])


def test_the_table_of_abilities_is_complete():
    """README.md names the families that have each ability."""
    able: dict[str, set[str]] = {}
    specs = [f"{path}:smoke" for path in sorted((ROOT / "configs").glob("*.py"))]
    stage = configs.load(f"{ROOT}/configs/shapes_vqgan.py:scales_smoke").to_dict()
    embedder = configs.load(f"{ROOT}/configs/shapes_contrastive.py:smoke").to_dict()
    decoders = [f"{ROOT}/configs/{name}.py:smoke" for name in DECODERS]
    cases = [(spec, "") for spec in [*specs, f"{ROOT}/configs/shapes.py"]]
    for spec, run in [*cases, *((spec, "runs/embedder") for spec in decoders)]:
        config = configs.copy(configs.load(spec))
        if run:
            config.embedder.update(run=run, config=embedder)
        if config.family == "next_scale":
            config.first_stage.update(run="runs/scales", config=stage)
        if config.family == "prior":
            config.first_stage.update(run="runs/embedder", config=embedder)
        for ability in load_family(config).abilities:
            able.setdefault(ability, set()).add(config.family)
    told: dict[str, set[str]] = {}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [
        row.split("|")[1:4] for row in text.splitlines() if re.match(r"\| `[a-z_`, ]+` \|", row)
    ]
    named: set[str] = set()
    for abilities, _, families in rows:
        if families.strip() != "the same":
            named = set(re.findall(r"`(\w+)`", families)) & set(names_with("families", "make"))
        told |= {ability: named for ability in re.findall(r"`(\w+)`", abilities)}
    assert told == able and set(told) == set(ABILITIES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_programs_compile_and_their_imports_exist(page):
    for _, code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "t2i_jax":
                module = importlib.import_module(node.module)
                for alias in node.names:
                    found = hasattr(module, alias.name) or importlib.util.find_spec(
                        f"{node.module}.{alias.name}"
                    )
                    assert found, f"{node.module}.{alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_accepted(page, monkeypatch):
    """The parser takes each command, and each config has the variant and the fields it names."""
    monkeypatch.chdir(ROOT)
    for arguments in commands(page) if page != FAMILY_PAGE else []:  # it makes its config
        args, rest = cli.parser().parse_known_args(arguments)
        overrides = [each.removeprefix("--config.") for each in rest]
        assert all(each.startswith("--config.") for each in rest), arguments
        for spec in [getattr(args, "config", None), *getattr(args, "subjects", [])]:
            if spec and ".py" in spec and "NAME" not in spec:
                configs.load(spec, overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for name in re.findall(r"\b(?:configs|t2i_jax|tests|parity|docs)/[\w/]+\.(?:py|md)\b", text):
        example = "NAME" in name or (page == FAMILY_PAGE and name.endswith("/imle.py"))
        assert example or (ROOT / name).is_file(), name
    for name, variant in re.findall(r"\b(?:configs/)?(\w+\.py):([a-z_0-9]+)", text):
        if (ROOT / "configs" / name).is_file():
            configs.load(f"{ROOT}/configs/{name}:{variant}")


def test_messages_of_the_troubleshooting_page_exist():
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    files = sorted((ROOT / "t2i_jax").rglob("*.py"))
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a literal in several lines
    messages = re.findall(r"^\*\*`([^`]+)`\*\*$", text, re.MULTILINE)
    assert len(messages) >= 15
    assert [message for message in messages if message not in source] == []
