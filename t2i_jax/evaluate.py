"""Scores of a trained run, and of the ruler itself on true pictures."""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from t2i_jax.data import source as sources
from t2i_jax.grid import sheet
from t2i_jax.metrics import alignment
from t2i_jax.pipeline import Pipeline


def evaluate(pipe: Pipeline, workdir, split: str = "test", num: int = 0, seed: int = 0) -> dict:
    """Draw one picture for each of the first `num` captions of a split, score them, and write what came out.

    Writes `evaluation/SPLIT.json` and `evaluation/SPLIT.png` in `workdir`; gives the report. Captions that the exact parser
    cannot read (real pictures have no grammar) are drawn and not scored.
    """
    settings = pipe.config.evaluate
    source = sources.load(pipe.config.data, split)
    count = min(num or settings.num, len(source.captions))
    captions = list(source.captions[:count])
    images = []
    for first in tqdm(range(0, count, settings.batch), desc=f"drawing {split}", unit="batch", leave=False):
        part = captions[first : first + settings.batch]
        index = first + np.arange(settings.batch)
        filled = part + [""] * (settings.batch - len(part))  # one size, one program
        images.append(pipe.draw_rows(filled, index, seed)[: len(part)])
    images = np.concatenate(images)
    report = {"split": split, "seed": seed, "weights": pipe.weights, "sample": pipe.family.settings["sample"]}
    if alignment.can_score(captions):
        true = source.read(np.arange(count))
        report["drawn"] = alignment.score(images, captions)
        report["true"] = alignment.score(true, captions)["exact"]
        if "reconstruct" in pipe.family.abilities:
            again = np.concatenate([_reconstruct(pipe, part) for part in np.array_split(true, -(-count // settings.batch))])
            report["reconstructed"] = alignment.score(again, captions)["exact"]
    folder = Path(workdir) / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    shown = min(count, 24)
    sheet(images[:shown], captions[:shown], columns=6).save(folder / f"{split}.png")
    (folder / f"{split}.json").write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")
    return report


def evaluate_truth(config, split: str = "test", num: int = 0) -> str:
    """The ruler's own error: the parser on true pictures with their captions, and with captions of other pictures.

    Raises ValueError if the source's captions have no grammar.
    """
    source = sources.load(config.data, split)
    count = min(num or len(source.captions), len(source.captions))
    captions = list(source.captions[:count])
    if not alignment.can_score(captions):
        raise ValueError(
            f"the captions of {config.data.name!r} have no grammar that the parser reads: only `shapes` can be scored"
        )
    images = source.read(np.arange(count))
    shuffled = [captions[i] for i in np.random.default_rng(0).permutation(count)]
    parts = [("true pictures, their own captions", captions), ("true pictures, shuffled captions", shuffled)]
    return "\n\n".join(f"{title}\n{alignment.format_report(alignment.score(images, words))}" for title, words in parts)


def summary(report: dict, workdir) -> str:
    """A few lines for a person: the score, the parser's own error, the image tokenizer's ceiling, and where the grid is."""
    grid = Path(workdir) / "evaluation" / f"{report['split']}.png"
    if "drawn" not in report:
        return f"drawn: {grid} (these captions have no grammar, so no exact score)"
    lines = [
        alignment.format_report(report["drawn"]),
        f"the parser itself, on the true pictures: {report['true']['value']:.4f}",
    ]
    if "reconstructed" in report:
        lines.append(f"the image tokenizer's reconstructions of them: {report['reconstructed']['value']:.4f}")
    exact, worst = report["drawn"]["exact"], report["drawn"]["worst_kind"]
    lines.append(
        f"exact match on {report['split']}: {exact['value']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] "
        f"of {exact['n']} captions, worst kind ({worst}) {report['drawn']['kinds'][worst]['value']:.3f}; pictures in {grid}"
    )
    return "\n".join(lines)


def _reconstruct(pipe: Pipeline, images: np.ndarray) -> np.ndarray:
    return np.asarray(pipe.family.abilities["reconstruct"](pipe.variables, {"image": images}, None))
