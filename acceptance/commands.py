"""Shell commands of a page in Markdown, and what stands for them in a small setting."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
# Set-up, the project's checks, and what runs for minutes: CI and its own tests run these.
NOT_RUN = (
    "git clone",
    "python3 -m venv",
    "python3.11 -m venv",
    "pip install",
    "ruff check",
    "lint-imports",
    "basedpyright",
    "python -m pytest",
    "python scripts/endurance.py",
    "python main.py serve",  # acceptance/test_serve.py
    "python main.py benchmark",  # needs PyTorch; tests/benchmark and parity/ run its parts
)
PLACEHOLDERS = {  # what the reader fills in: what the sandbox of the tests has
    "RUN": "runs/shapes",
    "DIR": "pictures",
    "PICTURES": "pictures",
    "X.png": "picture.png",
    "M.png": "picture.png",
    "configs/NAME.py": "configs/shapes.py",
    "/shared/run": "shared/run",
    "/tmp/pod": "pod",
    "gs://BUCKET/runs/shapes": "bucket/run",  # acceptance/test_bucket.py
}
SMALLER = (  # (pattern of an argument, what replaces it)
    (r"--num=\d+", "--num=2"),
    (r"--steps=\d+", "--steps=2"),
    (r"--minutes=[\d.]+", "--pictures=16"),
    (r"--config\.train\.steps=\d+", "--config.train.steps=4"),
    (r"--config\.train\.score_every=\d+", "--config.train.score_every=4"),
    (r"--trials=\d+", "--trials=2"),
    (r"--config\.train\.batch_size=\d+", "--config.train.batch_size=8"),
    (r"--config\.model\.width=\d+", "--config.model.width=32"),
    (r"--config\.model\.heads=\d+", "--config.model.heads=2"),
    (r"--config\.data\.sizes=.*", "--config.data.sizes=('32x32','40x24','24x40')"),
    (r"--config\.parallel\.fsdp=\d+", "--config.parallel.fsdp=8"),
    (r"(.*device_count)=\d+(.*)", r"\1=8\2"),
)
SAME_DATA = {  # where the tiny variant is of other data than the page says
    "configs/stable_diffusion.py": "--config.data.name=folder",
    "configs/fashion_vae.py": "--config.data.resolution=28",  # as that of configs/fashion_gan.py
}
MAIN = "python main.py "


class Command(NamedTuple):
    """A command of the project.

    variables: of its environment.
    arguments: after `python main.py`.
    """

    variables: dict[str, str]
    arguments: list[str]


def lines_of(page: Path) -> list[str]:
    """Return the command lines of the shell blocks of a page, without comments."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [line.split(" #")[0].strip() for line in lines if line.strip()]


def is_run(line: str) -> bool:
    """Return whether a line is run here: it calls `python main.py`, and is not one of NOT_RUN.

    Raises ValueError for a line that is neither.
    """
    if line.startswith(NOT_RUN):
        return False
    if MAIN not in line:
        raise ValueError(f"{line!r} is run by no test: let it call main.py, or add it to NOT_RUN")
    return True


def read(line: str) -> Command:
    """Return the call of main.py in a line; what launches it (srun, gcloud) is left out."""
    before, _, after = line.partition(MAIN)
    if before.count('"') % 2:  # the command is an argument of another: --command="... main.py ..."
        before, after = "", after.partition('"')[0]
    words = [word.partition("=") for word in shlex.split(before)]
    variables = {name: value for name, _, value in words if name.isupper()}
    return Command(variables, shlex.split(after))


def smaller(command: Command) -> Command:
    """Return a command that shows the same on tiny models, in the folder that the tests make."""
    variables = {name: _smaller(value) for name, value in command.variables.items()}
    arguments = [_tiny(_smaller(_filled(arg))) for arg in command.arguments]
    for file, setting in SAME_DATA.items():
        if f"--config={file}:" in "".join(arguments):
            arguments.append(setting)
    return Command(variables, arguments)


def _filled(argument: str) -> str:
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{PLACEHOLDERS.get(value, value)}"


def _smaller(text: str) -> str:
    for pattern, small in SMALLER:
        text = re.sub(f"^{pattern}$", small, text)
    return text


def _tiny(argument: str) -> str:
    """Choose the variant `smoke` of a config file, after the variant that is named."""
    spec = argument.rpartition("=")[2]
    file, _, variant = spec.partition(":")
    if argument.startswith("--sweep=") or not file.endswith(".py") or variant.endswith("smoke"):
        return argument
    smoke = f"{variant}_smoke" if variant else "smoke"
    return f"{argument.removesuffix(spec)}{file}:{smoke}"
