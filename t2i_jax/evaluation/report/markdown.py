"""The report of a comparison as Markdown."""

from collections.abc import Sequence

from t2i_jax.evaluation.report import table
from t2i_jax.evaluation.report.entry import Entry
from t2i_jax.evaluation.report.pictures import Picture


def markdown(entries: Sequence[Entry], plan: dict, pictures: Sequence[Picture]) -> str:
    """Return the report as Markdown; its pictures are files beside it."""
    columns = table.filled_columns(entries)
    lines = [
        "# Comparison",
        "",
        table.conditions(entries, plan),
        "",
        *(f"- {sentence}" for sentence in table.headlines(entries)),
        "",
        f"| model | {' | '.join(column.title for column in columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, cells in table.rows(entries, columns):
        texts = (f"**{text}**" if is_best else text for text, is_best in cells)
        lines.append(f"| {name} | {' | '.join(texts)} |")
    lines += [
        "",
        *(f"- {column.title}: {column.meaning}" for column in columns),
        "",
        *(f"- {note}" for note in table.notes(entries)),
    ]
    for picture in pictures:
        lines += ["", f"![{picture.shows}]({picture.name})"]
    return "\n".join([*lines, ""])
