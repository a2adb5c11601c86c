"""Scores of a trained run, and of the ruler itself on true pictures."""

import contextlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from t2i_jax.data import source as sources
from t2i_jax.grid import sheet
from t2i_jax.measures import (
    MEASURES,
    Trial,
    attempt,
    check,
    classifier_of,
    exhibit,
    features,
    features_of,
    hears,
    load_extractor,
    made,
)
from t2i_jax.metrics import alignment, captioning, classification, cost, denoising, diversity, fidelity, robustness
from t2i_jax.models import classifier
from t2i_jax.pipeline import Pipeline
from t2i_jax.run_folder import write_whole

SHOWN = 24  # pictures in the grid
KEPT = 64  # pictures in pictures.npz


def evaluate(pipe: Pipeline, workdir, split: str = "test", num: int = 0, seed: int = 0, measures: Sequence[str] = ()) -> dict:
    """Draw one picture for each of the first `num` captions of a split, measure them, and write what came out.

    A model that does not draw makes of each example what it can (`measures.made`).

    Writes metrics.json (with every setting needed to do it again), grid.png, pictures.npz and plots, in
    `workdir/evaluation/SPLIT`; gives the report. Other measures that are there already, taken under the same setting, stay.
    measures: names of MEASURES; by default those of `usual`. What cannot be measured is listed with the reason under
    "not_measured". Raises ValueError for an unknown measure.
    """
    check(measures)
    source = sources.load(pipe.config.data, split)
    measures = measures or usual(pipe, source)
    count = min(num or pipe.config.evaluate.num, len(source.captions))
    captions = list(source.captions[:count])
    true = source.read(np.arange(count))
    drawn = made(pipe, captions, true, seed, f"drawing {split}")
    trial = Trial(pipe, split, source, seed, captions, true, drawn)
    folder = Path(workdir) / "evaluation" / split
    plain = json.loads(json.dumps(setting(trial, source.fingerprint)))  # as it is read back: tuples are lists
    report = {"setting": plain, "captions": captions[:KEPT], "not_measured": {}}
    before = read_report(folder)
    if before and before["setting"] == plain:
        report = before  # other measures of the same pictures stay
    for name in measures:
        report["not_measured"].pop(name, None)
        try:
            report[name] = MEASURES[name](trial)
        except (ValueError, FileNotFoundError, jax.errors.JaxRuntimeError) as error:  # the last: not enough memory
            report["not_measured"][name] = str(error)
    folder.mkdir(parents=True, exist_ok=True)
    sheet(*exhibit(pipe, captions[:SHOWN], true[:SHOWN], drawn[:SHOWN]), columns=6).save(folder / "grid.png")
    if curve := report.get("reconstruction", {}).get("denoising"):
        denoising.plot(curve, folder / "denoising.png")
    np.savez_compressed(folder / "pictures.npz", drawn=drawn[:KEPT], true=true[:KEPT])
    write_whole(folder / "metrics.json", json.dumps(report, indent=1, sort_keys=True))
    return report


def usual(pipe: Pipeline, source: sources.Source) -> tuple[str, ...]:
    """The measures by which models of such data and abilities are known."""
    abilities = pipe.family.abilities
    drawing = "classification" if len(source.labels) else "alignment"
    return (drawing,) * bool({"sample", "reconstruct"} & abilities.keys()) + ("captioning",) * ("caption" in abilities)


def read_report(folder) -> dict | None:
    """The report that `evaluate` wrote to `folder`, or None."""
    path = Path(folder) / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def setting(trial: Trial, data: str) -> dict:
    """Everything needed to repeat an evaluation, in plain data."""
    pipe = trial.pipe
    return {
        "split": trial.split,
        "num": len(trial.captions),
        "seed": trial.seed,
        "data": data,
        "weights": pipe.weights,
        **{ability: dict(settings) for ability, settings in pipe.family.settings.items()},
        "config": pipe.config.to_dict(),
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("t2i_jax", "jax", "flax", "numpy", "pillow")},
    }


def score_during(pipe: Pipeline, source: sources.Source) -> dict[str, float]:
    """What `train.score_every` writes, of the first `train.score_examples` captions of a source; what there is of

    "score/exact": the share drawn exactly right, for captions with a grammar, and "score/kid" for others; "score/accuracy":
    the share recognised as the class of the caption, for a source of classes and a model that hears them. "score/caption":
    the share of captions that are true of their picture, of a model that captions.
    "score/diversity" (the mean distance of two drawn pictures) and "score/vendi" (the effective number of distinct ones),
    each as a part of that of the true pictures: near 0, the model has collapsed. Without the extractor's weights, or with
    too few pictures, there are no KID and diversities.
    """
    count = min(pipe.config.train.score_examples, len(source.captions))
    captions, labels = list(source.captions[:count]), source.labels[:count]
    true = source.read(np.arange(count))
    images, grammar, scores = made(pipe, captions, true, seed=0), alignment.can_score(captions), {}
    if "caption" in pipe.family.abilities and grammar:
        scores["score/caption"] = captioning.score(pipe.caption(list(true)), captions, true)["agrees"]["value"]
    if not len(images):
        return scores
    if grammar:
        scores["score/exact"] = alignment.score(images, captions)["exact"]["value"]
    if len(labels) and hears(pipe.config):
        with contextlib.suppress(ValueError):  # no two classes to tell apart
            found = classifier.predict(classifier_of(sources.load(pipe.config.data, "train")), images)
            scores["score/accuracy"] = classification.accuracy(found, labels, source.classes)["accuracy"]["value"]
    with contextlib.suppress(FileNotFoundError, ValueError):  # no weights, or too few pictures: training goes on
        extractor = load_extractor(pipe.config)
        real, drawn = features_of(extractor, source, np.arange(count))["features"], features(extractor, images)["features"]
        parts = {"collapse": lambda: diversity.mode_collapse(drawn, captions, real, captions)}
        if not grammar:
            parts["kid"] = lambda: fidelity.kid(real, drawn)["value"]
        found = attempt(parts)
        if "kid" in found:
            scores["score/kid"] = found["kid"]
        if spread := found.get("collapse"):
            scores |= {"score/diversity": spread["distance"], "score/vendi": spread["vendi"] / spread["vendi_real"]}
    return scores


def summary(report: dict, workdir) -> str:
    """A few lines for a person: the scores, the ruler's own error, the image tokenizer's ceiling, what is missing, the grid."""
    folder = Path(workdir) / "evaluation" / report["setting"]["split"]
    lines = []
    if "classification" in report:
        lines += _class_lines(report["classification"])
    if "fidelity" in report:
        lines += _fidelity_lines(report["fidelity"])
    if "reconstruction" in report:
        lines.append("reconstruction: {psnr:.1f} dB PSNR, {ssim:.3f} SSIM".format(**report["reconstruction"]))
    if "captioning" in report:
        lines += _captioning_lines(report["captioning"])
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
        lines.append(f"its reconstructions of them: {report['reconstructed']['value']:.4f}")
    if "shuffled" in report:
        lines.append("drawn pictures, by their own captions and by those of others:")
        lines += [
            _beside(atom, *(report[name]["atoms"][atom] for name in ("drawn", "shuffled"))) for atom in report["drawn"]["atoms"]
        ]
    exact, worst = report["drawn"]["exact"], report["drawn"]["worst_kind"]
    lines.append(
        f"exact match on {split}: {exact['value']:.3f} [{exact['low']:.3f}, {exact['high']:.3f}] "
        f"of {exact['n']} captions, worst kind ({worst}) {report['drawn']['kinds'][worst]['value']:.3f}"
    )
    return lines


def _captioning_lines(report: dict) -> list[str]:
    def of(name, what):
        r = report[name]
        return f"{what}: {r['value']:.3f} [{r['low']:.3f}, {r['high']:.3f}] of {r['n']}"

    if "word_f1" in report:
        return [of("word_f1", "words that captions share with the true ones (F1)")]
    exact = f"; as the true caption says it: {report['exact']['value']:.3f}; not in the grammar: {report['unparsed']:.3f}"
    return [of("agrees", "captions that are true of their picture") + exact]


def _beside(name: str, own: dict, other: dict) -> str:
    """One score in percent by the own captions and by those of others, and whether the intervals overlap."""
    each = " and ".join(f"{100 * r['value']:5.1f} % [{100 * r['low']:5.1f}, {100 * r['high']:5.1f}]" for r in (own, other))
    return f"  {name:<10}{each}, " + ("apart" if own["low"] > other["high"] else "not told apart")


def _class_lines(report: dict) -> list[str]:
    drawn, real = report["drawn"], report["real"]
    if report["conditional"]:
        own, ceiling = drawn["accuracy"], real["accuracy"]
        worst = min(drawn["recall"], key=drawn["recall"].get)
        lines = [
            f"class accuracy: {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}] of {own['n']} drawn pictures, "
            f"{ceiling['value']:.3f} of the real ones; worst class ({worst}) {drawn['recall'][worst]:.3f}"
        ]
    else:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in drawn["share"].items())
        lines = [f"classes recognised in {drawn['n']} drawn pictures: {shares}"]
    return [*lines, f"  never drawn: {', '.join(drawn['missing']) or 'none of them'}"]


def _fidelity_lines(report: dict) -> list[str]:
    lines = [f"features of {report['extractor']}: {report['rule']}"]
    kids = report.get("kid", {})
    for name in kids.keys() - {"refused"}:
        value, low, high = (1000 * kids[name][key] for key in ("value", "low", "high"))
        lines.append(
            f"  KID x 1000 of {'the drawn' if name == 'drawn' else 'other real'} pictures: {value:.2f} [{low:.2f}, {high:.2f}]"
        )
    return lines + [f"  {name} refused: {why}" for name, why in report["refused"].items()]


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
