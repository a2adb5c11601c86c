"""Prompts from a text file."""

from pathlib import Path


def read_prompts(path) -> list[str]:
    """Read a text file with a prompt a line; blank lines are left out.

    Raises FileNotFoundError if there is none, ValueError if it is no UTF-8 text or has no prompt.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--prompts: there is no file {path}: name a text file")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts: {path} is not UTF-8 text ({error})") from None
    if any("\0" in line for line in lines):
        raise ValueError(f"--prompts: {path} has NUL bytes: save it as UTF-8 text")
    if not (prompts := [line.strip() for line in lines if line.strip()]):
        raise ValueError(f"--prompts: {path} has no prompt: write one a line")
    return prompts
