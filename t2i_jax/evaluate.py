"""Scores of a trained run, and of the ruler itself on true pictures."""

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from t2i_jax.data import source as sources
from t2i_jax.grid import sheet
from t2i_jax.measures import MEASURES, Trial, draw, features, features_of, load_extractor
from t2i_jax.metrics import alignment, cost, fidelity, robustness
from t2i_jax.pipeline import Pipeline

SHOWN = 24  # pictures in the grid
KEPT = 64  # pictures in pictures.npz


def evaluate(
    pipe: Pipeline, workdir, split: str = "test", num: int = 0, seed: int = 0, measures: Sequence[str] = ("alignment",)
) -> dict:
    """Draw one picture for each of the first `num` captions of a split, measure them, and write what came out.

    Writes metrics.json (with every setting needed to do it again), grid.png and pictures.npz in `workdir/evaluation/SPLIT`;
    gives the report. measures: names of MEASURES. What cannot be measured is listed with the reason under "not_measured".
    Raises ValueError for an unknown measure.
    """
    if unknown := sorted(set(measures) - set(MEASURES)):
        raise ValueError(f"there is no measure {unknown[0]!r}: there are {', '.join(MEASURES)}")
    source = sources.load(pipe.config.data, split)
    count = min(num or pipe.config.evaluate.num, len(source.captions))
    captions = list(source.captions[:count])
    drawn = draw(pipe, captions, seed, f"drawing {split}")
    trial = Trial(pipe, split, source, seed, captions, source.read(np.arange(count)), drawn)
    report: dict[str, Any] = {"setting": setting(trial, source.fingerprint), "captions": captions[:KEPT], "not_measured": {}}
    for name in measures:
        try:
            report[name] = MEASURES[name](trial)
        except (ValueError, FileNotFoundError) as error:
            report["not_measured"][name] = str(error)
    folder = Path(workdir) / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    sheet(drawn[:SHOWN], captions[:SHOWN], columns=6).save(folder / "grid.png")
    np.savez_compressed(folder / "pictures.npz", drawn=drawn[:KEPT], true=trial.true[:KEPT])
    (folder / "metrics.json").write_text(json.dumps(report, indent=1, sort_keys=True), encoding="utf-8")
    return report


def setting(trial: Trial, data: str) -> dict:
    """Everything needed to repeat an evaluation, in plain data."""
    pipe = trial.pipe
    return {
        "split": trial.split,
        "num": len(trial.captions),
        "seed": trial.seed,
        "data": data,
        "weights": pipe.weights,
        "sample": dict(pipe.family.settings["sample"]),
        "config": pipe.config.to_dict(),
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("t2i_jax", "jax", "flax", "numpy", "pillow")},
    }


def score_during(pipe: Pipeline, source: sources.Source) -> dict[str, float]:
    """What `train.score_every` writes: {"score/exact": share} of the first `train.score_examples` captions of a source.

    Captions without a grammar give {"score/kid": KID}, and nothing where the extractor's weights are not there.
    """
    count = min(pipe.config.train.score_examples, len(source.captions))
    captions = list(source.captions[:count])
    images = draw(pipe, captions, seed=0)
    if alignment.can_score(captions):
        return {"score/exact": alignment.score(images, captions)["exact"]["value"]}
    try:
        extractor = load_extractor(pipe.config)
    except FileNotFoundError:
        return {}
    parts = [features(extractor, part)["features"] for part in (images, source.read(np.arange(count)))]
    return {"score/kid": fidelity.kid(*parts)["value"]}


def summary(report: dict, workdir) -> str:
    """A few lines for a person: the scores, the ruler's own error, the image tokenizer's ceiling, what is missing, the grid."""
    folder = Path(workdir) / "evaluation" / report["setting"]["split"]
    lines = []
    if "fidelity" in report:
        lines += _fidelity_lines(report["fidelity"])
    if "reconstruction" in report:
        lines.append("reconstruction: {psnr:.1f} dB PSNR, {ssim:.3f} SSIM".format(**report["reconstruction"]))
    if "cost" in report:
        lines += cost.lines(report["cost"])
    lines += [f"{name} not measured: {why}" for name, why in report["not_measured"].items()]
    if "alignment" in report:
        lines += _alignment_lines(report["alignment"], report["setting"]["split"])
    return "\n".join([*lines, f"pictures in {folder / 'grid.png'}, all numbers in {folder / 'metrics.json'}"])


def _alignment_lines(report: dict, split: str) -> list[str]:
    lines = [
        alignment.format_report(report["drawn"]),
        f"the parser itself, on the true pictures: {report['true']['value']:.4f}",
    ]
    if "reconstructed" in report:
        lines.append(f"the image tokenizer's reconstructions of them: {report['reconstructed']['value']:.4f}")
    exact, worst = report["drawn"]["exact"], report["drawn"]["worst_kind"]
    lines.append(
        f"exact match on {split}: {exact['value']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] "
        f"of {exact['n']} captions, worst kind ({worst}) {report['drawn']['kinds'][worst]['value']:.3f}"
    )
    return lines


def _fidelity_lines(report: dict) -> list[str]:
    drawn, real = ({key: 1000 * value for key, value in report["kid"][name].items()} for name in ("drawn", "real"))
    lines = [
        f"KID x 1000 ({report['extractor']}): {drawn['value']:.2f} [{drawn['low']:.2f}, {drawn['high']:.2f}]; "
        f"other real pictures: {real['value']:.2f}\n  features by {report['rule']}"
    ]
    return lines + [f"{name} refused: {why}" for name, why in report.get("refused", {}).items()]


def evaluate_truth(config, split: str = "test", num: int = 0) -> str:
    """The ruler's own error, for a person.

    With a grammar: the parser on true pictures with their captions, and with captions of other pictures. Without: KID of
    other real pictures, and of the true ones spoilt in known ways. Raises FileNotFoundError, saying how to get them, if that
    needs weights that are not there.
    """
    source = sources.load(config.data, split)
    count = min(num or len(source.captions), len(source.captions))
    captions, images = list(source.captions[:count]), source.read(np.arange(count))
    if not alignment.can_score(captions):
        return _fidelity_truth(config, source, images, split)
    shuffled = [captions[i] for i in np.random.default_rng(0).permutation(count)]
    parts = [("true pictures, their own captions", captions), ("true pictures, shuffled captions", shuffled)]
    return "\n\n".join(f"{title}\n{alignment.format_report(alignment.score(images, words))}" for title, words in parts)


def _fidelity_truth(config, source: sources.Source, images: np.ndarray, split: str) -> str:
    extractor = load_extractor(config)
    other = "validation" if split != "validation" else "test"
    others = sources.load(config.data, other)
    spoilt = {name: noise(images, 0) for name, noise in robustness.PICTURE_NOISES.items()}
    real = features_of(extractor, source, np.arange(len(images)))["features"]
    found = {f"real pictures of {other}": features_of(extractor, others, np.arange(len(others.captions)))}
    found |= {f"{split}, {name}": features(extractor, pictures) for name, pictures in spoilt.items()}
    kids = {name: fidelity.kid(real, each["features"]) for name, each in found.items()}
    lines = [f"KID x 1000 from the {len(images):,} pictures of {split} ({extractor.name}, {extractor.rule})"]
    for name, kid in kids.items():
        lines.append(f"  {name:<28}{1000 * kid['value']:8.2f}   [{1000 * kid['low']:.2f}, {1000 * kid['high']:.2f}]")
    return "\n".join(lines)
