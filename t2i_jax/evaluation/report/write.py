"""Write the report of a comparison: a table, curves and pictures side by side."""

from collections.abc import Sequence
from pathlib import Path

from t2i_jax.evaluation.report.entry import Entry
from t2i_jax.evaluation.report.html_page import html_page
from t2i_jax.evaluation.report.markdown import markdown
from t2i_jax.evaluation.report.pictures import make_report_pictures


def write_report(entries: Sequence[Entry], out, plan: dict) -> Path:
    """Write report.html, report.md and their pictures to `out`. Return the path of the HTML."""
    out = Path(out)
    pictures = make_report_pictures(entries)
    for picture in pictures:
        picture.image.save(out / picture.name)
    (out / "report.md").write_text(markdown(entries, plan, pictures), encoding="utf-8")
    (out / "report.html").write_text(html_page(entries, plan, pictures), encoding="utf-8")
    return out / "report.html"
