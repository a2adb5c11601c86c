"""Layers, lengths and imports: what import-linter cannot see."""

import ast
import subprocess
import sys
import tomllib

from tests.conftest import ROOT

PACKAGE = ROOT / "t2i_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_MODULES_AT_TOP = 8
MAX_FILE_LINES = 400
MAX_LINES_OF = {"main.py": 100, "t2i_jax/training/loop.py": 300}  # the shim, and the only loop
MAX_FUNCTION_LINES = 80

# Functions that take a folder of t2i_jax/ and find files there by name: an import at run time.
FIND_BY_NAME = {"lookup", "names_with", "defines", "import_module"}
FINDERS = {"t2i_jax.core.registry", "importlib"}
REGISTRY = "core/registry.py"

# Packages that only reading training data needs, and packages that nothing needs.
INPUT_PACKAGES = {"array_record", "grain", "keras", "tensorflow", "tensorflow_datasets"}
OTHER_FRAMEWORKS = {"diffusers", "torch", "transformers"}
TWINS = "benchmark/twins/"  # what the benchmark compares with; imported in processes of its own
PAGE_PACKAGES = {"fastapi", "gradio", "uvicorn"}
PAGE = "serve/"
SWEEP_PACKAGES, SWEEP = {"optuna"}, "evaluation/sweep.py"
INPUT_FILES = {
    "data/emoji_builder.py",
    "data/read_ahead.py",
    "data/shapes_builder.py",
    "data/tfds.py",
}


def name_of(path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_few_modules_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_MODULES_AT_TOP


def test_files_are_short():
    too_long = {}
    for path in [ROOT / "main.py", *MODULES]:
        name = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines >= MAX_LINES_OF.get(name, MAX_FILE_LINES):
            too_long[name] = lines
    assert not too_long


def test_functions_are_short():
    """The closures in a function count as part of it."""
    too_long = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines >= MAX_FUNCTION_LINES:
                    too_long[f"{name_of(path)}: {node.name}"] = lines
    assert not too_long


def layers() -> list[tuple[set[str], bool]]:
    """Return the layers of pyproject.toml, top first: (modules, may they import one another)."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = settings["tool"]["importlinter"]["contracts"][0]
    return [
        ({name.strip() for name in line.replace("|", ":").split(":")}, "|" not in line)
        for line in contract["layers"]
    ]


def layer_number(module: str) -> int:
    return next(i for i, (modules, _) in enumerate(layers()) if module in modules)


def may_import(importer: str, imported: str) -> bool:
    above, below = layer_number(importer), layer_number(imported)
    if above == below:
        return importer == imported or layers()[above][1]
    return above < below


def folders_found_by_name(path) -> set[str]:
    """Return the folders in which a file finds others by name.

    Where the folder of a call is computed, it can be any that the file names in a string.
    """
    tree, found = tree_of(path), set()
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in FINDERS
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not is_finder(node.func, imported):
            continue
        first = node.args[0]
        if isinstance(first, ast.JoinedStr):  # f"t2i_jax.FOLDER.{name}"
            first = first.values[0]
        texts = [first] if isinstance(first, ast.Constant) else ast.walk(tree)
        found |= {
            text.value.removeprefix("t2i_jax.").split(".")[0]
            for text in texts
            if isinstance(text, ast.Constant) and isinstance(text.value, str)
        }
    return found & {name for modules, _ in layers() for name in modules}


def is_finder(function, imported: set[str]) -> bool:
    """Return whether a called function is one of FIND_BY_NAME, not a method of the same name."""
    if isinstance(function, ast.Attribute):
        module = function.value
        known = isinstance(module, ast.Name) and module.id in ("importlib", "registry")
        return known and function.attr in FIND_BY_NAME
    return isinstance(function, ast.Name) and function.id in imported & FIND_BY_NAME


def test_files_found_by_name_are_below():
    """What is imported by name at run time obeys the layers too."""
    found = {
        name_of(path): folders_found_by_name(path) for path in MODULES if name_of(path) != REGISTRY
    }
    assert found["families/load.py"] == {"families"} and found["data/load.py"] == {"data"}
    assert found["preparing.py"] >= {"data", "features", "text"}
    assert {"convert", "evaluation", "models"} <= set().union(*found.values())
    for name, folders in found.items():
        importer = name.split("/")[0].removesuffix(".py")
        for folder in folders:
            assert may_import(importer, folder), f"{name} finds files of {folder} by name"


def test_layers_are_checked():
    """The check above tells right from wrong."""
    assert may_import("families", "models") and not may_import("models", "families")
    assert may_import("convert", "config") and not may_import("decoding", "diffusion")
    assert may_import("data", "core") and not may_import("core", "data")


def imported_packages(path) -> set[str]:
    """Return the packages imported anywhere in a file, in functions too."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_only_some_files_import_large_packages():
    for path in MODULES:
        packages = imported_packages(path)
        assert not packages & OTHER_FRAMEWORKS or name_of(path).startswith(TWINS), path
        assert not packages & INPUT_PACKAGES or name_of(path) in INPUT_FILES, path
        assert not packages & PAGE_PACKAGES or name_of(path).startswith(PAGE), path


IMPORT_ALL = """
import importlib, pkgutil, sys
blocked = set(sys.argv[1].split(","))
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
import t2i_jax
count = 0
for module in pkgutil.walk_packages(t2i_jax.__path__, "t2i_jax."):
    apart = any(part in module.name for part in (".twins", ".serve", "evaluation.sweep"))
    if not module.name.endswith("_builder") and not apart:
        importlib.import_module(module.name)
        count += 1
print(count)
"""


def test_everything_else_imports_without_them():
    """Models, step and sampling need none of them, nor do the packages that they import."""
    blocked = ",".join(sorted(INPUT_PACKAGES | OTHER_FRAMEWORKS | PAGE_PACKAGES | SWEEP_PACKAGES))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, blocked], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    apart = (TWINS, PAGE, SWEEP)
    left_out = [p for p in MODULES if p.stem.endswith("_builder") or name_of(p).startswith(apart)]
    assert int(done.stdout) == len(MODULES) - len(left_out) - 1  # without t2i_jax/__init__.py
