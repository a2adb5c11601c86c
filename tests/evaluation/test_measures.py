"""Each measure tells a model that draws the true pictures from one that always draws the same."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from t2i_jax.core.family import Variables
from t2i_jax.core.source import Source
from t2i_jax.data import canaries
from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier, picture_features
from t2i_jax.evaluation.draw import enlarged_plainly, made_small
from t2i_jax.evaluation.measure import Trial, load_measures, take
from t2i_jax.evaluation.measures.alignment import derangement
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment, fidelity, similarity, word_maps
from t2i_jax.runs.drawn import Drawn
from t2i_jax.text import minilm
from t2i_jax.text import tokenizer as tokenizers
from tests.evaluation.fakes import (
    COUNT,
    Enlarger,
    Painter,
    Translator,
    cell_means,
    distinct,
    family_of,
    shift_levels,
    use_sources,
)


def measure(name, *trials):
    """What the measure `name` gives of each trial."""
    return [take(load_measures()[name], trial) for trial in trials]


def test_alignment(trials):
    good, bad = measure("alignment", *trials)
    exact = good["drawn"]["exact"]["value"]
    assert (
        exact
        == good["drawn"]["strict"]["value"]
        == good["geneval"]["overall"]["value"]
        == good["true"]["value"]
        == 1.0
    )
    assert good["reconstructed"]["value"] == 1.0, "a level of difference does not matter"
    assert bad["drawn"]["exact"]["value"] <= 2 / COUNT and bad["geneval"]["overall"]["value"] < 0.5
    assert good["shuffled"]["exact"]["value"] == 0, "all captions differ"
    for atom in ("count", "colour"):
        assert good["shuffled"]["atoms"][atom]["n"] == COUNT
        assert good["drawn"]["atoms"][atom]["low"] > good["shuffled"]["atoms"][atom]["high"]
        # A model that always draws the same scores as often by any captions.
        own, other = (bad[name]["atoms"][atom]["value"] for name in ("drawn", "shuffled"))
        assert abs(own - other) < 1e-9


def test_compositional(trials, monkeypatch):
    """Its captions are those of the other split, whatever the trial was drawn from."""
    good, bad = trials
    unseen = load_source(good.pipe.config.data, "compositional")
    monkeypatch.setattr(good.pipe, "family", family_of({"sample": None}))
    monkeypatch.setattr(good.pipe, "draw_rows", lambda captions, index, seed: unseen.read(index))
    (report,) = measure("compositional", good)
    assert report["strict"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": len(unseen.captions)}
    with pytest.raises(ValueError, match="does not draw"):
        measure("compositional", bad)
    drawer = SimpleNamespace(
        family=family_of({}), config=good.pipe.config.copy_and_resolve_references()
    )
    drawer.config.data.name = "folder"
    with pytest.raises(ValueError, match="only `shapes`"):
        measure("compositional", dataclasses.replace(good, pipe=drawer))


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_derangement_moves_every_position(count):
    order = derangement(count)
    assert sorted(order) == list(range(count)) and not (order == np.arange(count)).any()
    np.testing.assert_array_equal(order, derangement(count))


@pytest.fixture
def clothes(smoke, monkeypatch, tmp_path):
    """Pictures of three colours, which are their classes.

    Gives (trial(labels drawn, encoder), a list with an item for each fitted classifier).
    """
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    colours, fitted, fit = np.eye(3) * 200, [], classifier.fit

    def source(split, count):
        rng = np.random.default_rng(len(split))
        labels = np.arange(count) % 3
        noise = rng.integers(0, 50, (count, 8, 8, 3))
        images = (colours[labels][:, None, None] + noise).astype(np.uint8)
        captions = [f"a photo of a {'rgb'[label]}" for label in labels]
        return Source(captions, images.__getitem__, split, (), labels.tolist(), ("r", "g", "b"))

    known = {"train": source("train", 300), "test": source("test", 90)}
    use_sources(monkeypatch, lambda config, split: known[split])
    monkeypatch.setattr(classifier, "fit", lambda *args: fitted.append(1) or fit(*args))

    def trial(drawn, encoder="transformer"):
        test, config = known["test"], smoke("shapes", f"text.encoder={encoder}")
        images = known["train"].read(np.asarray(drawn))  # example i of "train" is of class i % 3
        true = test.read(np.arange(len(drawn)))
        pipe = SimpleNamespace(config=config, family=family_of({}))
        return Trial(pipe, "test", test, 0, test.captions[: len(drawn)], true, images)

    return trial, fitted


def test_classification(clothes):
    trial, fitted = clothes
    good, mistaken, collapsed = measure(
        "classification", *(trial(drawn) for drawn in (range(30), [0, 1, 1] * 10, [0] * 30))
    )
    for report in (good, mistaken, collapsed):
        assert report["conditional"]
        assert report["real"]["accuracy"]["value"] == 1 and report["real"]["missing"] == []
    assert good["drawn"]["accuracy"]["value"] == 1 and good["drawn"]["missing"] == []
    assert mistaken["drawn"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert mistaken["drawn"]["missing"] == ["b"]
    assert mistaken["drawn"]["confusion"] == [[10, 0, 0], [0, 10, 0], [0, 10, 0]]
    assert collapsed["drawn"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert collapsed["drawn"]["missing"] == ["g", "b"]
    (unconditional,) = measure("classification", trial([0, 0, 0, 1] * 5, "none"))
    assert unconditional["conditional"] is False and unconditional["drawn"]["missing"] == ["b"]
    assert unconditional["drawn"]["share"] == {"r": 0.75, "g": 0.25, "b": 0.0}
    assert unconditional["real"]["missing"] == []
    assert fitted == [1], "one classifier judges them all"


def test_without_classes_there_is_nothing_to_classify(trials):
    with pytest.raises(ValueError, match="not of classes"):
        measure("classification", trials[0])
    with pytest.raises(ValueError, match="have no classes"):
        classifier.cached_classifier(trials[0].source)


def test_features_of_drawn_pictures_are_computed_once(trials, monkeypatch):
    computed, extract = [], picture_features.extract_features
    monkeypatch.setattr(
        picture_features,
        "extract_features",
        lambda extractor, x: computed.append(x is trials[0].drawn) or extract(extractor, x),
    )
    for name in ("fidelity", "diversity"):
        measure(name, trials[0])
    assert sum(computed) == 1


def test_fidelity(trials):
    good, bad = measure("fidelity", *trials)
    assert good["extractor"] == "Cells" and good["rule"] == "none"
    assert good["precision_recall"] == {"precision": 1.0, "recall": 1.0}
    assert good["kid"]["drawn"]["value"] <= 0 < bad["kid"]["drawn"]["low"], (
        "the same pictures are nearer than two samples are"
    )
    assert good["kid"]["real"] == bad["kid"]["real"]
    assert abs(good["kid"]["real"]["value"]) < bad["kid"]["drawn"]["value"]
    assert bad["precision_recall"]["recall"] < 0.5 and bad["density_coverage"]["coverage"] < 0.5
    assert "fid" not in good
    assert "24 samples of 48 dimensions" in good["refused"]["frechet_distance"]


def test_only_the_distance_of_inception_is_called_fid(trials, monkeypatch):
    def three(weights, x):
        return {"features": cell_means(weights, x)["features"][:, :3]}

    extractor = Extractor("Three", "none", {}, three, fid=True)
    monkeypatch.setattr(picture_features, "load_extractor", lambda config: extractor)
    good, bad = measure("fidelity", *trials)
    assert good["fid"] == pytest.approx(0, abs=1e-12)
    assert bad["fid"] > 1e-4 and "frechet_distance" not in good


def test_too_few_pictures_are_refused(trials):
    def first(count):
        some = {name: getattr(trials[0], name)[:count] for name in ("captions", "true", "drawn")}
        return dataclasses.replace(trials[0], **some)

    with pytest.raises(ValueError, match=r"Frechet.*3 samples of 48"):
        measure("fidelity", first(3))
    (report,) = measure("fidelity", first(5))
    assert "value" in report["kid"]["drawn"] and "precision" in report["precision_recall"], (
        "what can be measured is"
    )
    assert set(report["refused"]) == {"density_coverage", "frechet_distance"}


def test_reconstruction(trials, tmp_path):
    (report,) = measure("reconstruction", trials[0])
    cells, again = (cell_means({}, x)["maps"] for x in (trials[0].true, trials[0].true // 2 * 2))
    distance = np.mean(similarity.perceptual_distance(again, cells))
    expected = {"extractor": "Cells", "value": pytest.approx(distance, rel=1e-5)}
    assert report["map_distance"] == expected and distance > 0
    assert 50 < report["psnr"] < 70 and report["ssim"] > 0.99  # at most one level of 255 away
    assert report["psnr_under_noise"]["clean"] == pytest.approx(report["psnr"])
    assert report["psnr_under_noise"]["grain_32"] < 25
    load_measures()["reconstruction"].save(report, tmp_path)
    assert (tmp_path / "denoising.png").is_file()


def test_upscaling(trials):
    """Repeated pixels are worse than bicubic enlargement; what applies is said."""
    true = trials[0].true
    pipe = Enlarger(trials[0].pipe.config)
    small = made_small(pipe, true, 0)
    repeated = small.repeat(2, 1).repeat(2, 2)
    (report,) = measure("upscaling", dataclasses.replace(trials[0], pipe=pipe, drawn=repeated))
    bicubic = enlarged_plainly(small, 2)
    decibels = [similarity.psnr(x, true).mean() for x in (repeated, bicubic)]
    assert report["psnr"] == pytest.approx(decibels[0]) and report["scale"] == 2
    assert report["bicubic"]["psnr"] == pytest.approx(decibels[1])
    assert report["bicubic"]["ssim"] == pytest.approx(similarity.ssim(bicubic, true).mean())
    gain = report["gain"]
    assert gain["value"] == pytest.approx(decibels[0] - decibels[1]) and gain["high"] < 0
    cells = [cell_means({}, x)["features"] for x in (true, repeated, bicubic)]
    found = report["in_features"]
    for name, own in zip(("model", "bicubic"), cells[1:], strict=True):
        distance = np.linalg.norm(own - cells[0], axis=1).mean()
        assert found["feature_distance"][name]["value"] == pytest.approx(distance, rel=1e-4)
        assert found["kid"][name] == pytest.approx(fidelity.kid_of_pairs(cells[0], own), rel=1e-3)
    assert found["extractor"] == "Cells" and distance > 0
    lines = load_measures()["upscaling"].lines(report, {})
    assert lines[0].startswith("enlarged 2 times: ") and len(lines) == 3
    assert lines[2].startswith("  distance from the true picture (Cells): ")
    with pytest.raises(ValueError, match="does not enlarge"):
        measure("upscaling", trials[0])


def test_translation(trials):
    """A perfect translation to lighter pictures, and pictures left as they are."""
    pipe, true = Translator(trials[0].pipe.config), trials[0].true
    lighter = shift_levels({}, {"image": true}, None)
    second = Source(trials[0].captions, lambda index: lighter[index], "lighter")
    source = trials[0].source._replace(second=second, paired=True)
    trial = dataclasses.replace(trials[0], pipe=pipe, source=source, drawn=lighter)
    (report,) = measure("translation", trial)
    plain = similarity.psnr(true, lighter).mean()
    features = [cell_means({}, x)["features"] for x in (true, lighter)]
    apart = np.linalg.norm(features[0] - features[1], axis=1).mean()
    for direction, order in (("forward", 1), ("backward", -1)):
        own = report[direction]
        assert own["psnr"]["translated"] == 100.0  # equal pictures: the most that counts
        assert own["psnr"]["untranslated"] == pytest.approx(plain)
        assert own["psnr"]["change"]["low"] == pytest.approx(100.0 - plain, rel=0.1)
        assert own["feature_distance"]["translated"] == 0
        assert own["feature_distance"]["change"]["value"] == pytest.approx(-apart, rel=1e-5)
        start, target = features[::order]
        assert own["kid"]["untranslated"] == pytest.approx(fidelity.kid(target, start))
        assert own["kid"]["translated"] == pytest.approx(fidelity.kid(target, target))
    said = load_measures()["translation"].lines(report, {})
    assert len(said) == 6 and said[0].startswith(
        "forward: PSNR in dB from the true translation 100"
    )
    unpaired = dataclasses.replace(trial, source=source._replace(paired=False))
    assert set(measure("translation", unpaired)[0]["forward"]) == {"kid", "refused"}
    with pytest.raises(ValueError, match="no second set"):
        measure("translation", dataclasses.replace(trial, source=trials[0].source))
    with pytest.raises(ValueError, match="does not translate"):
        measure("translation", trials[0])
    with pytest.raises(ValueError, match="the measure translation is for it"):
        measure("fidelity", trial)


def test_canaries(trials, monkeypatch):
    """A model whose loss of planted patterns is the lowest, and one that has seen none."""
    config = SimpleNamespace(data=ConfigDict({"name": "canaries", "count": 6, "resolution": 8}))
    trial, planted = dataclasses.replace(trials[0], pipe=SimpleNamespace(config=config)), True

    def losses(pipe, source, index, title):
        pictures = source.read(index)
        number = int(source.captions[0].split()[-1])
        assert len(index) == 1001 and source.captions == [canaries.caption(number)] * 1001
        same = (pictures == canaries.pattern([number], 8)).all((1, 2, 3))
        assert same.tolist() == [True, *[False] * 1000]
        return np.random.default_rng(number).random(1001) - (same if planted else 0)

    monkeypatch.setattr("t2i_jax.evaluation.measures.canaries.example_losses", losses)
    (kept,) = measure("canaries", trial)
    low = 0.025 ** (1 / 6)  # 6 of 6 have a probability of 0.025 there
    assert kept["extracted"] == {"value": 1.0, "low": pytest.approx(low), "high": 1.0, "n": 6}
    assert kept["rank"]["value"] == 0
    (said,) = load_measures()["canaries"].lines(kept, {})
    assert "found by their loss: 1.000 [0.541, 1.000] of 6;" in said
    planted = False
    (gone,) = measure("canaries", trial)
    expected = [np.random.default_rng(k).random(1001) for k in range(6)]
    rank = np.mean([np.mean(x[1:] <= x[0]) for x in expected])
    assert gone["extracted"]["value"] == 0 and gone["rank"]["value"] == pytest.approx(rank)
    with pytest.raises(ValueError, match="no pictures were planted"):
        measure("canaries", trials[0])


def test_membership(trials, monkeypatch):
    """A model whose loss of training examples is lower, and one that has seen neither."""
    pipe = trials[0].pipe
    training = load_source(pipe.config.data, "train")
    known, levels = {}, {training.fingerprint: -1.0, "more": 0.0}

    def losses(pipe, source, index, title):
        known.setdefault(title, index)
        return np.sin(np.arange(len(index))) * 0.1 + levels[source.fingerprint]

    monkeypatch.setattr("t2i_jax.evaluation.measures.membership.example_losses", losses)
    more = trials[0].source._replace(fingerprint="more")
    trial = dataclasses.replace(trials[0], source=more, captions=["x"] * 120)
    assert measure("membership", trial)[0]["auc"]["value"] == 1.0
    spread = known["losses of training"]
    assert len(np.unique(spread)) == 120 and spread[-1] == len(training.captions) - 1
    levels[training.fingerprint] = 0.0
    assert measure("membership", trial)[0]["auc"]["value"] == 0.5
    with pytest.raises(ValueError, match="another split than train"):
        measure("membership", dataclasses.replace(trial, split="train"))


class Explainer:
    """Gives a word that names an object its mask, or (`knows` is False) all but that."""

    def __init__(self, config, knows):
        self.config, self.knows = config, knows
        self.family = family_of({"explain": None})

    def explain(self, images, captions):
        found = []
        for image, caption in zip(images, captions, strict=True):
            maps = np.zeros((len(caption.split()), *image.shape[:2]))
            for named in word_maps.objects_of(image, caption):
                maps[list(named.words)] = named.mask == self.knows
            found.append(SimpleNamespace(maps=maps))
        return found


def test_word_maps(trials, monkeypatch):
    """A model that knows where objects are has an IoU of 1; one that looks beside them has 0."""
    monkeypatch.setattr("t2i_jax.evaluation.measures.word_maps.MAX_PICTURES", 8)
    good = dataclasses.replace(trials[0], pipe=Explainer(trials[0].pipe.config, True))
    bad = dataclasses.replace(good, pipe=Explainer(good.pipe.config, False))
    right, wrong = measure("word_maps", good, bad)
    for name in ("true", "drawn"):
        for what in ("phrase", "noun", "coarse_mask"):
            assert right[name][what]["iou"]["value"] == 1.0
        assert wrong[name]["phrase"]["iou"]["value"] < 0.1
        assert right[name]["told_apart"]["value"] == 1.0 == 1 - wrong[name]["told_apart"]["value"]
    count = sum(2 - (c.split()[0] != "a" or len(c.split()) == 4) for c in good.captions[:8])
    assert right["true"]["noun"]["iou"]["n"] == count
    assert "IoU 1.000 [1.000, 1.000]" in load_measures()["word_maps"].lines(right, {})[0]
    nothing = dataclasses.replace(good, drawn=good.drawn[:0])
    (report,) = measure("word_maps", nothing)
    assert "drawn" not in report and report["true"] == right["true"]
    assert load_measures()["word_maps"].lines(report, {})[-1] == (
        f"  drawn refused: {report['refused']['drawn']}"
    )
    for split in ("validation", "paraphrase"):
        with pytest.raises(ValueError, match="measure another split"):
            measure("word_maps", dataclasses.replace(good, split=split))
    with pytest.raises(ValueError, match="cannot 'explain'"):
        measure("word_maps", trials[0])


class Restorer(Painter):
    """Draws the true picture in the mask (`knows`), or black; `spills`: over all, too."""

    def __init__(self, config, knows=True, spills=False):
        super().__init__(config)
        self.family = SimpleNamespace(
            abilities={"inpaint": self.inpaint}, static=(), texts=(), settings={}
        )
        self.variables = Variables({}, {}, {})
        self.knows, self.spills = knows, spills
        where = np.array(distinct(self.test))
        captions = [self.test.captions[i] for i in where]
        tokens, _ = tokenizers.encode(self.tokenizer, captions, config.text.length)
        self.tokens, self.pictures = tokens["tokens"], self.test.read(where)

    def settings(self, given, ability):
        return {}

    def inpaint(self, variables, inputs, keys):
        asked = inputs["text"]["transformer"]["tokens"]
        same = (asked[:, None] == self.tokens[None]).all(-1)
        true = jnp.asarray(self.pictures)[same.argmax(1)]
        drawn = true if self.knows else 0 * true
        return jnp.where(inputs["mask"][..., None] | self.spills, drawn, inputs["image"])


def test_inpainting(trials):
    """A model that knows what was hidden, one that does not, and one that redraws everything."""
    measured = dataclasses.replace(trials[0], drawn=trials[1].drawn)
    makes = ({}, {"knows": False}, {"knows": False, "spills": True})
    made = [
        dataclasses.replace(measured, pipe=Restorer(trials[0].pipe.config, **how)) for how in makes
    ]
    good, bad, spilling = measure("inpainting", *made)
    pairs = sum(caption.count(" a ") for caption in trials[0].captions)
    assert good["inpainted"]["n"] == pairs > 5
    assert good["inpainted"]["value"] == 1.0 == good["outside_equal"]["value"]
    assert bad["inpainted"]["value"] == 0.0 and bad["outside_equal"]["value"] == 1.0
    assert spilling["outside_equal"]["value"] == 0.0
    assert good["hidden"]["value"] == 0.0, "an empty box shows one object"
    assert good["pasted"]["value"] <= 2 / pairs, "a part of the first picture"
    (line,) = load_measures()["inpainting"].lines(good, {})
    assert "inpainted 1.000" in line and line.endswith("equal in 100%")
    nothing = dataclasses.replace(made[0], captions=made[0].captions[:1], true=made[0].true[:1])
    with pytest.raises(ValueError, match="two named objects"):
        measure("inpainting", nothing)
    with pytest.raises(ValueError, match="cannot 'inpaint'"):
        measure("inpainting", trials[0])
    with pytest.raises(ValueError, match="which object is where"):
        measure("inpainting", dataclasses.replace(made[0], split="paraphrase"))


class Varier:
    """Gives pictures back as their variations, or the first one for all."""

    def __init__(self, keeps):
        self.family, self.keeps = family_of({"vary": None}), keeps

    def vary(self, images, seed):
        return Drawn([Image.fromarray(x if self.keeps else images[0]) for x in images], [])


def test_variations(trials):
    made = [dataclasses.replace(trials[0], pipe=Varier(keeps)) for keeps in (True, False)]
    good, bad = measure("variations", *made)
    assert good["own"]["strict"]["value"] == 1.0, "the true pictures"
    assert good["shuffled"]["strict"]["value"] == 0.0, "all captions differ"
    assert bad["own"]["strict"]["value"] <= 2 / COUNT
    for atom in ("count", "colour"):
        assert good["own"]["atoms"][atom]["low"] > good["shuffled"]["atoms"][atom]["high"]
        own, others = (bad[name]["atoms"][atom]["value"] for name in ("own", "shuffled"))
        assert abs(own - others) < 1e-9, "a model that ignores the picture is at chance"
    (line,) = load_measures()["variations"].lines(good, {})
    assert "strict 1.000" in line and "count 1.000" in line
    with pytest.raises(ValueError, match="draws no variations"):
        measure("variations", trials[0])


def test_diversity(trials):
    good, bad = measure("diversity", *trials)
    assert good["of_one_caption"]["value"] == bad["of_one_caption"]["value"] == 0, (
        "both models draw one picture of a caption"
    )
    assert good["collapse"]["distance"] == pytest.approx(1) and bad["collapse"]["distance"] == 0
    assert bad["collapse"]["vendi"] == pytest.approx(1) and bad["collapse"]["duplicates"] == 1.0
    assert good["memorised"]["value"] <= 2 / COUNT
    assert good["memorised"]["among"] == good["memorised"]["of"] == 240


def test_robustness(trials):
    """A painter that knows captions by heart can do nothing with another spelling."""
    good, _ = measure("robustness", *trials)
    assert good["clean"]["value"] == 1.0 and good["upper_case"]["value"] <= 2 / COUNT
    noises = [report["value"] for name, report in good.items() if name not in ("clean", "mean")]
    assert good["mean"] == pytest.approx(np.mean(noises)) and len(noises) > 3


def test_retrieval(trials, monkeypatch):
    """With colours as embeddings, a probe finds true pictures, and not what is always the same."""
    with pytest.raises(ValueError, match="have a grammar"):
        measure("retrieval", trials[0])
    monkeypatch.setattr(alignment, "can_score", lambda captions: False)

    def embed(captions):
        if len(captions) == COUNT:
            return cell_means({}, trials[0].true)["features"]
        training = load_source(trials[0].pipe.config.data, "train")
        return cell_means({}, training.read(np.arange(len(captions))))["features"]

    monkeypatch.setattr(minilm, "embed", embed)
    good, bad = measure("retrieval", *trials)
    assert good["drawn"] == good["true"] == bad["true"]
    assert good["drawn"]["captions_of_pictures"]["R@1"]["value"] > 0.9
    assert bad["drawn"]["captions_of_pictures"]["R@1"]["value"] <= 2 / COUNT


def test_retrieval_by_own_vectors(trials):
    """Of a perfect model and a blind one; for captions of classes, R@1 is zero-shot accuracy."""

    def embedder(images, texts):
        family = family_of({"embed_image": None, "embed_text": None})
        return SimpleNamespace(
            family=family, embed_image=lambda given: images, embed_text=lambda given: texts
        )

    def retrieve(captions, images, texts):
        trial = dataclasses.replace(
            trials[0], pipe=embedder(images, texts), captions=captions, drawn=trials[0].drawn[:0]
        )
        own = measure("retrieval", trial)[0]["own"]
        assert len(load_measures()["retrieval"].lines({"own": own}, {})) == 2
        return own["captions_of_pictures"]["R@1"]["value"]

    one_hot = np.eye(COUNT, dtype=np.float32)
    assert retrieve(trials[0].captions, one_hot, one_hot) == 1.0
    assert retrieve(trials[0].captions, np.ones_like(one_hot), one_hot) == pytest.approx(1 / COUNT)
    labels = np.arange(COUNT) % 3
    names, images = np.eye(3)[labels], np.eye(3)[np.where(np.arange(COUNT) < 6, 0, labels)]
    captions = [f"class {label}" for label in labels]
    assert retrieve(captions, images, names) == pytest.approx(1 - 4 / COUNT)
    assert load_measures()["retrieval"].usual(embedder(0, 0), trials[0].source)
