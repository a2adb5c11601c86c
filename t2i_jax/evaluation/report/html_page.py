"""The report of a comparison as one HTML file, pictures included."""

import base64
import html
import io
import json
from collections.abc import Sequence

from t2i_jax.evaluation.report import table
from t2i_jax.evaluation.report.entry import Entry
from t2i_jax.evaluation.report.pictures import Picture

NARROWEST_PX = 1000  # of a picture: on a narrower screen it scrolls, and its text can be read
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>Comparison</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2em auto; padding: 0 1em;
  color: #222; overflow-wrap: anywhere }}
table {{ border-collapse: collapse; display: block; overflow-x: auto }}
th, td {{ padding: .35em .6em; border-bottom: 1px solid #ddd; text-align: right;
  white-space: nowrap }}
th:first-child {{ text-align: left }}
thead th {{ border-bottom: 2px solid #222; white-space: normal; vertical-align: bottom;
  overflow-wrap: normal }}
.top {{ font-weight: 700; background: #e4f3e4 }} ul {{ color: #444; padding-left: 1.2em }}
.wide {{ overflow-x: auto }} .wide img {{ width: 100% }}
pre {{ background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 12px }}
</style></head><body>
<h1>Comparison</h1><p>{conditions}</p><ul>{headlines}</ul>
<table><thead><tr><th>model</th>{head}</tr></thead><tbody>
{body}</tbody></table>
{pictures}
<h2>What the numbers mean</h2><ul>{meanings}</ul><ul>{notes}</ul>
<details><summary>Every setting</summary><pre>{settings}</pre></details>
</body></html>
"""


def html_page(entries: Sequence[Entry], plan: dict, pictures: Sequence[Picture]) -> str:
    """Return the report as one HTML page that needs no other file."""
    columns = table.filled_columns(entries)
    settings = {entry.name: entry.metrics["setting"] for entry in entries}
    heads = (
        f'<th title="{html.escape(column.meaning)}">{html.escape(column.title)}</th>'
        for column in columns
    )
    return PAGE.format(
        conditions=html.escape(table.conditions(entries, plan)),
        headlines=_items(table.headlines(entries)),
        head="".join(heads),
        body="".join(_row(name, cells) for name, cells in table.rows(entries, columns)),
        meanings=_items([f"{column.title}: {column.meaning}" for column in columns]),
        notes=_items(table.notes(entries)),
        pictures="\n".join(map(_picture, pictures)),
        settings=html.escape(json.dumps(settings, indent=1, sort_keys=True)),
    )


def _items(sentences: Sequence[str]) -> str:
    return "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)


def _row(name: str, cells: Sequence[tuple[str, bool]]) -> str:
    filled = (
        f'<td class="{"top" if is_best else ""}">{html.escape(text)}</td>'
        for text, is_best in cells
    )
    return f"<tr><th>{html.escape(name)}</th>{''.join(filled)}</tr>\n"


def _picture(picture: Picture) -> str:
    buffer = io.BytesIO()
    picture.image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/png;base64,{data}"
    style = f"min-width: {min(picture.image.width, NARROWEST_PX)}px"
    image = f'<img alt="{picture.shows}" style="{style}" src="{source}">'
    return f'<h2>{picture.title}</h2><div class="wide">{image}</div>'
