"""What is measured of a model: a Trial in, plain data out; the numbers themselves are those of metrics/.

A measure raises ValueError where it does not apply, or there is too little to measure, and FileNotFoundError where weights are
missing; both say what would help.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from t2i_jax.data import source as sources
from t2i_jax.features import extractor as extractors
from t2i_jax.metrics import (
    alignment,
    captioning,
    classification,
    cost,
    denoising,
    diversity,
    fidelity,
    geneval,
    retrieval,
    robustness,
    similarity,
)
from t2i_jax.models import classifier
from t2i_jax.pipeline import Pipeline
from t2i_jax.text import minilm
from t2i_jax.text import tokenizer as tokenizers

BATCH = 64  # pictures that an extractor looks at together
NEAR_TRAINING = 2048  # training pictures among which nearest neighbours are sought
PER_CAPTION, FEW_CAPTIONS = 8, 16  # pictures of one caption, and for how many captions
FOUND = 64  # captions that a report keeps
UNDER_NOISE = 128  # captions drawn again under each noise


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is measured: `drawn` is what the model made (`made`), `true` the pictures that the captions were written for.

    source: of `split`; captions and true are of its first examples.   true, drawn: uint8 [N, H, W, 3].
    """

    pipe: Pipeline
    split: str
    source: sources.Source
    seed: int
    captions: list[str]
    true: np.ndarray
    drawn: np.ndarray

    @functools.cached_property
    def extractor(self) -> extractors.Extractor:
        """As `load_extractor`, once."""
        return load_extractor(self.pipe.config)

    @functools.cached_property
    def drawn_features(self) -> dict[str, np.ndarray]:
        """Of the drawn pictures, for all measures."""
        return features(self.extractor, self.drawn)

    @functools.cached_property
    def true_features(self) -> dict[str, np.ndarray]:
        """Of the true pictures."""
        return features_of(self.extractor, self.source, np.arange(len(self.true)))


def draw(pipe: Pipeline, captions: Sequence[str], seed: int, title: str = "drawing") -> np.ndarray:
    """One picture a caption, uint8 [N, H, W, 3]; picture i has the random key of (seed, i), whatever the batch."""
    # One size, one program; a smaller one, a power of two, for a few.
    size, images = min(pipe.config.evaluate.batch, 1 << (len(captions) - 1).bit_length()), []
    for first in tqdm(range(0, len(captions), size), desc=title, unit="batch", leave=False):
        part = list(captions[first : first + size])
        filled = part + [""] * (size - len(part))
        images.append(pipe.draw_rows(filled, first + np.arange(size), seed)[: len(part)])
    return np.concatenate(images)


def made(pipe: Pipeline, captions: Sequence[str], true: np.ndarray, seed: int, title: str = "drawing") -> np.ndarray:
    """What a model makes of captions and their pictures, uint8 [N, H, W, 3]: it draws; if it cannot, it reconstructs.

    Of one that can do neither, N is 0.
    """
    if "sample" in pipe.family.abilities:
        return draw(pipe, captions, seed, title)
    return reconstruct(pipe, captions, true) if "reconstruct" in pipe.family.abilities else true[:0]


def exhibit(pipe: Pipeline, captions: Sequence[str], true: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Pictures and what to write beneath each, to look at a model: those that it drew; true ones with their reconstructions
    at their right; or true ones with the captions it gives them. images: what was `made` of the captions.
    """
    if "sample" in pipe.family.abilities:
        return images, titles(pipe.config, captions)
    return (np.concatenate([true, images], axis=2), list(captions)) if len(images) else (true, pipe.caption(true))


def need_made(trial: Trial) -> None:
    """ValueError if the model made no pictures that could be measured (see `made`)."""
    if not len(trial.drawn):
        raise ValueError("this model neither draws nor reconstructs pictures")


def load_extractor(config) -> extractors.Extractor:
    """The feature extractor that `config.evaluate` names. FileNotFoundError, saying how to get them, without its weights."""
    return extractors.load(config.evaluate.extractor, config.evaluate.extractor_path)


def features(extractor: extractors.Extractor, images: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Features (and logits) of pictures, an array or a stream of arrays uint8 [n, H, W, 3]; the results are held in memory."""
    parts = list(tqdm(extractors.extract(extractor, images, BATCH), "looking", unit="batch", leave=False, delay=2))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def features_of(extractor: extractors.Extractor, source: sources.Source, index: np.ndarray) -> dict[str, np.ndarray]:
    """`features` of the pictures of a source at `index`, computed once and then found again in the data folder."""
    weights = (np.asarray(x).tobytes() for x in jax.tree.leaves(extractor.weights))
    name = sources.fingerprint(extractor.name, extractor.rule, *weights, source.fingerprint, index.tobytes())[:32]
    path = sources.data_dir() / "picture_features" / f"{name}.npz"
    if not path.is_file():
        blocks = (source.read(index[first : first + BATCH]) for first in range(0, len(index), BATCH))
        found = features(extractor, blocks)
        with sources.whole(path) as part:
            np.savez(part, **found)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def classifier_of(training: sources.Source) -> dict:
    """Parameters of a classifier fitted to these pictures (models/classifier.py), once; then found again in the data folder.

    Raises ValueError if they have no classes.
    """
    if not len(training.labels):
        raise ValueError("these pictures have no classes, so there is nothing to classify them by")
    name = sources.fingerprint(*classifier.RECIPE, training.fingerprint)[:32]
    path = sources.data_dir() / "classifiers" / f"{name}.safetensors"
    if not path.is_file():
        params = classifier.fit(training.read, training.labels, len(training.classes))
        with sources.whole(path) as part:
            save_file(flatten_dict(params, sep="/"), part)
    return unflatten_dict(load_file(path), sep="/")


def hears(config) -> bool:
    """Whether a model is told its captions at all, so that what it draws can be held against them."""
    return config.text.encoder != "none"


def titles(config, captions: Sequence[str]) -> list[str]:
    """What to write beneath drawn pictures: their captions, if the model was told them."""
    return list(captions) if hears(config) else ["(told nothing)"] * len(captions)


def attempt(parts: Mapping[str, Callable[[], Any]]) -> dict:
    """{name: part()}; what raises ValueError (too few pictures, mostly) is left out and listed with the reason in "refused"."""
    report: dict[str, Any] = {"refused": {}}
    for name, part in parts.items():
        try:
            report[name] = part()
        except ValueError as error:
            report["refused"][name] = str(error)
    if len(report["refused"]) == len(parts):
        raise ValueError("; ".join(dict.fromkeys(report["refused"].values())))
    return report


def measure_alignment(trial: Trial) -> dict:
    """Exact scores of drawn, true and reconstructed pictures (the ceiling of a first stage), and GenEval's tasks.

    "shuffled": of the drawn pictures by the captions of others, which a model that hears nothing could score as well.
    """
    need_made(trial)
    if not alignment.can_score(trial.captions):
        raise ValueError("these captions have no grammar, so no exact score")
    seen = [alignment.read_picture(image) for image in trial.drawn]  # once, for three reports
    report = {
        "drawn": alignment.score(trial.drawn, trial.captions, seen=seen),
        "true": alignment.score(trial.true, trial.captions)["exact"],
        "geneval": geneval.score(trial.drawn, trial.captions, seen=seen),
    }
    if len(trial.captions) > 1:
        shuffled = [trial.captions[i] for i in others(len(trial.captions))]
        report["shuffled"] = alignment.score(trial.drawn, shuffled, seen=seen)
    if "reconstruct" in trial.pipe.family.abilities:
        report["reconstructed"] = alignment.score(reconstruct(trial.pipe, trial.captions, trial.true), trial.captions)["exact"]
    return report


def others(count: int) -> np.ndarray:
    """A fixed order int64 [count >= 2] in which nothing is in its own place: a random ring, each taking the next one's."""
    ring = np.random.default_rng(0).permutation(count)
    order = np.empty(count, np.int64)
    order[ring] = np.roll(ring, 1)
    return order


def measure_classification(trial: Trial) -> dict:
    """Whether drawn pictures are of the class of their caption, by a classifier fitted to the training pictures.

    "real" is of the true pictures: the classifier's own accuracy, the ceiling. Of a model that hears nothing ("conditional"
    is False) both are the histogram of the classes that are recognised.
    """
    need_made(trial)
    labels = trial.source.labels[: len(trial.true)]
    if not len(labels):
        raise ValueError("these captions are not of classes, so there is no class accuracy")
    params = classifier_of(sources.load(trial.pipe.config.data, "train"))
    found = {name: classifier.predict(params, images) for name, images in (("drawn", trial.drawn), ("real", trial.true))}
    classes, conditional = trial.source.classes, hears(trial.pipe.config)
    if conditional:
        return {"conditional": True} | {key: classification.accuracy(x, labels, classes) for key, x in found.items()}
    return {"conditional": False} | {key: classification.histogram(x, classes) for key, x in found.items()}


def measure_fidelity(trial: Trial) -> dict:
    """Distances between the drawn and the true pictures in an extractor's features; "real" is that of other real pictures."""
    need_made(trial)
    config = trial.pipe.config
    extractor = trial.extractor
    other = sources.load(config.data, "validation" if trial.split != "validation" else "test")
    drawn, true = trial.drawn_features, trial.true_features
    real = features_of(extractor, other, np.arange(min(len(trial.true), len(other.captions))))
    pairs = {"drawn": (true["features"], drawn["features"]), "real": (true["features"], real["features"])}
    parts = {
        "kid": lambda: attempt({name: lambda pair=pair: fidelity.kid(*pair) for name, pair in pairs.items()}),
        "precision_recall": lambda: fidelity.precision_recall(*pairs["drawn"]),
        "density_coverage": lambda: fidelity.density_coverage(*pairs["drawn"]),
        "fid" if extractor.fid else "frechet_distance": lambda: fidelity.frechet_distance(
            *(fidelity.moments([x]) for x in pairs["drawn"])
        ),
    }
    if "logits" in drawn:
        order = np.random.default_rng(0).permutation(len(drawn["logits"]))  # sources lie in order, which the score must not see
        parts["inception_score" if extractor.fid else "classifier_score"] = lambda: {
            name: fidelity.inception_score(found["logits"][order]) for name, found in (("drawn", drawn), ("true", true))
        }
    if extractor.embed_text:
        parts["cmmd"] = lambda: fidelity.cmmd(*pairs["drawn"])
        parts["clip_score"] = lambda: retrieval.clip_score(drawn["features"], extractor.embed_text(trial.captions))
    return {"extractor": extractor.name, "rule": extractor.rule, **attempt(parts)}


def measure_reconstruction(trial: Trial) -> dict:
    """How like the true pictures their reconstructions are: PSNR in dB, SSIM, and, where an extractor with maps is there, the
    distance of its maps, as LPIPS takes it but without LPIPS's weights."""
    if "reconstruct" not in trial.pipe.family.abilities:
        raise ValueError("this model does not reconstruct pictures")

    def psnr(a, b):
        return np.minimum(similarity.psnr(a, b), 100)  # a mean with the infinity of an equal picture says nothing

    def again_of(images):
        return reconstruct(trial.pipe, trial.captions, images)

    again = again_of(trial.true)
    report = {
        "psnr": float(np.mean(psnr(again, trial.true))),
        "ssim": float(np.mean(similarity.ssim(again, trial.true))),
    }
    noises = robustness.reconstruction_under_noise(again_of, trial.true, psnr, trial.seed)
    report["psnr_under_noise"] = noises
    few = trial.true[:UNDER_NOISE]
    report["denoising"] = denoising.psnr_curve(again_of, few, trial.seed)
    with contextlib.suppress(FileNotFoundError):
        extractor = trial.extractor
        distances = [
            similarity.perceptual_distance(a["maps"], b["maps"])
            for a, b in zip(
                *(extractors.extract(extractor, [x], BATCH, keys=("maps",)) for x in (again, trial.true)), strict=True
            )
            if "maps" in a
        ]
        if distances:
            report["map_distance"] = {"extractor": extractor.name, "value": float(np.mean(np.concatenate(distances)))}
    return report


def measure_diversity(trial: Trial) -> dict:
    """Whether one caption gives different pictures, and whether any of them are training pictures."""
    need_made(trial)
    config, spread = trial.pipe.config, max(len(trial.captions) // FEW_CAPTIONS, 1)
    extractor, training = trial.extractor, sources.load(config.data, "train")
    few = np.repeat(trial.captions[::spread][:FEW_CAPTIONS], PER_CAPTION).tolist()
    images = draw(trial.pipe, few, trial.seed, "drawing for diversity")
    known = np.unique(np.linspace(0, len(training.captions) - 1, NEAR_TRAINING).astype(int))
    trained, same = features_of(extractor, training, known)["features"], features(extractor, images)["features"]
    true, drawn = trial.true_features["features"], trial.drawn_features["features"]

    def memorised():
        found = diversity.memorised(drawn, trained, true)
        among = {"among": len(known), "of": len(training.captions)}  # a copy of any other training picture is not seen
        return {**{key: found[key] for key in ("value", "threshold", "quantile")}, **among}

    value = diversity.pairwise_distance(same, few)["value"]
    parts = {
        "of_one_caption": lambda: {"captions": len(few) // PER_CAPTION, "value": value},
        "collapse": lambda: diversity.mode_collapse(drawn, trial.captions, true, trial.captions),
        "memorised": memorised,
    }
    return {"extractor": extractor.name, **attempt(parts)}


def measure_robustness(trial: Trial) -> dict:
    """Exact match of pictures drawn from misspelt and reworded captions, against the captions that were meant."""
    need_made(trial)
    if not alignment.can_score(trial.captions):
        raise ValueError("these captions have no grammar, so no exact score under noise")
    noises = robustness.score_under_noise(
        lambda captions: draw(trial.pipe, captions, trial.seed, "drawing under noise"),
        trial.captions[:UNDER_NOISE],
        lambda images, captions: alignment.score(images, captions)["exact"],
        trial.seed,
    )
    return {**noises, "mean": float(np.mean([noises[name]["value"] for name in noises if name != "clean"]))}


def measure_retrieval(trial: Trial) -> dict:
    """How well a self-trained probe finds the caption of a drawn picture; real held-out pictures are the ceiling."""
    need_made(trial)
    if alignment.can_score(trial.captions):
        raise ValueError("these captions have a grammar: the exact score says more")
    config = trial.pipe.config
    extractor, training = trial.extractor, sources.load(config.data, "train")
    seen = features_of(extractor, training, np.arange(len(training.captions)))["features"]
    probe = retrieval.fit(seen, minilm.embed(list(training.captions)))
    said = minilm.embed(trial.captions)
    return {
        "extractor": extractor.name,
        "drawn": retrieval.recall(probe, trial.drawn_features["features"], said, trial.captions),
        "true": retrieval.recall(probe, trial.true_features["features"], said, trial.captions),
    }


def measure_captioning(trial: Trial) -> dict:
    """What the model says of the true pictures: whether it is true, for captions with a grammar, and how many words it shares
    with their captions, for others. "found": the first captions.
    """
    found = trial.pipe.caption(list(trial.true), seed=trial.seed)
    if alignment.can_score(trial.captions):
        report = captioning.score(found, trial.captions, trial.true)
    else:
        report = {"word_f1": captioning.mean_interval(captioning.word_f1(found, trial.captions))}
    return {**report, "found": found[:FOUND]}


def measure_cost(trial: Trial) -> dict:
    """Parameters, bytes, FLOPs, memory and times."""
    return cost.measure(trial.pipe, largest=trial.pipe.config.evaluate.batch)


MEASURES = {
    "alignment": measure_alignment,
    "classification": measure_classification,
    "fidelity": measure_fidelity,
    "reconstruction": measure_reconstruction,
    "diversity": measure_diversity,
    "robustness": measure_robustness,
    "captioning": measure_captioning,
    "retrieval": measure_retrieval,
    "cost": measure_cost,
}


def check(names: Sequence[str]) -> None:
    """ValueError, naming those there are, for a name that is not of MEASURES."""
    if unknown := sorted(set(names) - set(MEASURES)):
        raise ValueError(f"there is no measure {unknown[0]!r}: there are {', '.join(MEASURES)}")


def reconstruct(pipe: Pipeline, captions: Sequence[str], images: np.ndarray) -> np.ndarray:
    """Pictures as the model, told the captions (as many, or more), gives them back: uint8 [N, H, W, 3]."""
    size = pipe.config.evaluate.batch
    text, _ = tokenizers.encode(pipe.tokenizer, captions[: len(images)], pipe.config.text.length)
    inputs = {"image": images, "text": {pipe.config.text.encoder: text}}
    more = -len(images) % size
    filled = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[-1:], more, axis=0)]), inputs)  # one size, one program
    again, parts = pipe.family.abilities["reconstruct"], []
    for first in range(0, len(filled["image"]), size):
        part = jax.tree.map(lambda x, first=first: x[first : first + size], filled)
        parts.append(np.asarray(_compiled(again, pipe.variables, part)))
    return np.concatenate(parts)[: len(images)]


@functools.partial(jax.jit, static_argnums=0)
def _compiled(ability, variables, inputs):
    return ability(variables, inputs, None)
