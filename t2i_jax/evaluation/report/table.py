"""What a comparison says: its table, its headlines and its notes, without their layout."""

from collections.abc import Iterator, Sequence

from t2i_jax.evaluation.column import Column, at
from t2i_jax.evaluation.measure import load_measures
from t2i_jax.evaluation.report.entry import Entry

MINUTES = Column(
    title="minutes",
    value=at("minutes"),
    format="{:.1f}",
    better=0,
    meaning="in training steps, the compiling of the first included",
    order=110,
)
TREND = {
    True: "still falls",
    False: "no longer falls",
    None: "is too short to say whether it falls",
}


def all_columns() -> list[Column]:
    """Return the columns of all measures, and the minutes of training, in their order."""
    measured = (column for measure in load_measures().values() for column in measure.columns)
    return sorted((MINUTES, *measured), key=lambda column: column.order)


def filled_columns(entries: Sequence[Entry]) -> list[Column]:
    """Return the columns in which some model has a number."""
    return [
        column
        for column in all_columns()
        if any(column.value(entry.metrics) is not None for entry in entries)
    ]


def rows(
    entries: Sequence[Entry], columns: Sequence[Column]
) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
    """Yield (name, [(text, whether it is the best), ...]) of each model."""
    tops = [best(entries, column) for column in columns]
    for entry in entries:
        texts = [column.text(entry.metrics) for column in columns]
        yield entry.name, [(text, entry.name in top) for text, top in zip(texts, tops, strict=True)]


def best(entries: Sequence[Entry], column: Column) -> set[str]:
    """Return the names of the best models in a column.

    There are none where neither more nor less is better, or all are equal.
    """
    values = {entry.name: column.value(entry.metrics) for entry in entries}
    known = {name: value for name, value in values.items() if value is not None}
    if not column.better or len(set(known.values())) < 2:
        return set()
    top = (max if column.better > 0 else min)(known.values())
    return {name for name, value in known.items() if value == top}


def headlines(entries: Sequence[Entry]) -> list[str]:
    """Return what a person who chooses a model wants to know first, a sentence each."""
    sentences = []
    for column in all_columns():
        names = best(entries, column) if column.headline else set()
        if names:
            top = next(entry for entry in entries if entry.name in names)
            number = column.format.format(column.value(top.metrics))
            sentences.append(
                f"{column.headline}: {' and '.join(sorted(names))} ({column.title} {number})."
            )
    return sentences


def notes(entries: Sequence[Entry]) -> list[str]:
    """Return what was not measured and why, what the measures add, and how training ended."""
    missing: dict[str, list[str]] = {}
    for entry in entries:
        for name, why in entry.metrics["not_measured"].items():
            missing.setdefault(f"{name} not measured: {why}", []).append(entry.name)
    said = [f"{', '.join(names)}: {what}" for what, names in missing.items()]
    for name, measure in load_measures().items():
        said += measure.notes([e.metrics[name] for e in entries if name in e.metrics])
    for entry in entries:
        trend, spikes = TREND[entry.convergence["falls"]], entry.convergence["spikes"]
        said.append(
            f"{entry.name}: the training loss {trend} at the end (spikes on the way: {spikes})."
        )
    return said


def conditions(entries: Sequence[Entry], plan: dict) -> str:
    """Return under which conditions all models were trained and measured, a sentence."""
    setting = entries[0].metrics["setting"]
    trained = budget(plan)
    return (
        f"{trained[0].upper()}{trained[1:]}; measured on the same {setting['num']:,} captions of "
        f"{plan['split']}, seed {plan['seed']}, on {setting['device']}."
    )


def budget(plan: dict) -> str:
    """Return the budget of a plan, in words."""
    if plan["minutes"]:
        return (
            f"each config trained for about {plan['minutes']:g} minutes (compiling and scoring "
            "apart)"
        )
    if plan["pictures"]:
        return f"each config trained on {plan['pictures']:,} pictures"
    return "runs as they were found"
