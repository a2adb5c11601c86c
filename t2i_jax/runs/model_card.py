"""The model card of a run: README.md in its folder, as hubs of models show it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from t2i_jax.core.files import write_atomically
from t2i_jax.data.load import licence_of

NAME = "README.md"
OURS = "<!-- Written by t2i_jax, and again after each evaluation: delete this line to edit it. -->"
TASKS = {"sample": "text-to-image", "caption": "image-to-text"}  # as hubs name them
CALLS = {
    "sample": 'pipe("a caption", num=4, seed=0).images[0].save("drawn.png")',
    "caption": 'print(pipe.caption("picture.png"))',
    "edit": 'pipe.edit("a caption", "picture.png", strength=0.6).images[0]',
    "inpaint": 'pipe.inpaint("a caption", "picture.png", "mask.png").images[0]',
    "embed_image": 'cosines = pipe.embed_image("picture.png") @ pipe.embed_text(["a caption"]).T',
    "reconstruct": 'pipe.reconstruct(["picture.png"])[0]',
}


def write_card(
    workdir: Path, config: Any, abilities: Iterable[str], scores: Mapping[str, str] | None = None
) -> None:
    """Write the model card of the run in `workdir`, unless somebody has edited it.

    abilities: names of what the model can do.
    scores: {split: lines for a person}, of the splits that were evaluated.
    """
    path = Path(workdir) / NAME
    if path.exists() and OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return
    write_atomically(path, card(path.absolute().parent.name, config, [*abilities], scores or {}))


def renamed(text: str, before: str, after: str) -> str:
    """Return the text of a card of the run `before` as that of `after`."""
    for words in ("# {}\n", 'load("{}")', "--workdir={}`"):
        text = text.replace(words.format(before), words.format(after))
    return text


def card(name: str, config: Any, abilities: list[str], scores: Mapping[str, str]) -> str:
    """Return the text of a model card. name: of the run."""
    data, train = config.data, config.train
    calls = [CALLS[ability] for ability in CALLS if ability in abilities]
    begun = f" It started from `{config.init_from}`." if config.init_from else ""
    measured = [f"On `{split}`:\n\n```\n{lines}\n```" for split, lines in scores.items()]
    tasks = [f"pipeline_tag: {TASKS[ability]}" for ability in TASKS if ability in abilities]
    parts = [
        "\n".join(
            [
                "---",
                "library_name: t2i_jax",
                *tasks[:1],
                f"tags: [jax, flax, {config.family}]",
                "license: other",
                "---",
            ]
        ),
        OURS,
        f"# {name}",
        f"A model of the family `{config.family}` in t2i_jax (JAX). It can "
        f"{', '.join(sorted(abilities))}, with pictures of {data.resolution} x {data.resolution} "
        "pixels.",
        "## Training",
        f"{train.steps:,} steps of {train.batch_size} pictures.{begun} `run.json` has every "
        "setting.",
        "## Data",
        f"The source `{data.name}`. Licence: {licence_of(data)}.",
        "## Scores",
        *(measured or [f"Not measured yet: `t2i-jax evaluate --workdir={name}`."]),
        "## Use",
        "\n".join(["```python", "import t2i_jax", "", f'pipe = t2i_jax.load("{name}")', *calls])
        + "\n```",
    ]
    return "\n\n".join(parts) + "\n"
