"""Controls of a page, one for each setting of an ability."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from t2i_jax.core.family import Family
from t2i_jax.core.fields import Field
from t2i_jax.core.registry import lookup

LONGEST_SLIDER = 1_000  # of whole numbers: beyond, a number is written


def settings_fields(config, family: Family, ability: str) -> dict[str, Field]:
    """Return a field for each setting of an ability, with the value that it has now."""
    sections = lookup("families", config.family, "fields")(config)
    known = {**sections.get("sample", {}), **sections.get(ability, {})}
    return {
        name: known.get(name, Field(value, ""))._replace(default=value)
        for name, value in family.settings.get(ability, {}).items()
    }


def make_controls(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return {name: control} in the same order."""
    return {name: make_control(name, field) for name, field in fields.items()}


def make_control(name: str, field: Field) -> Any:
    """Return a control for a setting: its range and meaning are those of its field."""
    about: dict[str, Any] = {"label": name.replace("_", " "), "info": field.meaning or None}
    value = field.default
    if isinstance(value, bool):
        return gr.Checkbox(value=value, **about)
    if field.choices:
        return gr.Dropdown([*field.choices], value=value, **about)
    if isinstance(value, str):
        return gr.Textbox(value=value, **about)
    if not isinstance(value, int | float):
        return gr.Textbox(value=str(value), interactive=False, **about)
    whole = isinstance(value, int)
    low, high = field.low, field.high
    if low is not None and high is not None and high - low <= (LONGEST_SLIDER if whole else 100):
        return gr.Slider(low, high, value=value, step=1 if whole else (high - low) / 100, **about)
    limits = {"minimum": low, "maximum": high}
    return gr.Number(value=value, precision=0 if whole else None, **limits, **about)
