"""Each measure knows a model that draws the true pictures, and one that always draws the same."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from t2i_jax import measures
from t2i_jax.data import source as sources
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment, similarity
from t2i_jax.models import classifier
from t2i_jax.text import minilm
from t2i_jax.text import tokenizer as tokenizers

COUNT = 24


def means(weights, images):
    """The mean colour of each of 16 cells: uint8 [B, 32, 32, 3] -> [B, 48]."""
    cells = images.reshape(-1, 4, 8, 4, 8, 3).astype(np.float32).mean((2, 4)) / 255
    return {"features": cells.reshape(len(images), -1), "maps": [cells]}


def distinct(source):
    """Where the first captions are that are all different."""
    return sorted(np.unique(source.captions[: 2 * COUNT], return_index=True)[1])[:COUNT]


class Painter:
    """Knows the captions of `distinct` by heart and draws their true pictures, or always the first picture."""

    weights = "w"

    def __init__(self, config, always_the_same=False):
        self.config, self.test = config, sources.load(config.data, "test")
        self.index = {} if always_the_same else {self.test.captions[i]: i for i in distinct(self.test)}
        reconstruct = {"reconstruct": lambda variables, inputs, rng: inputs["image"] // 2 * 2}
        self.family = type("Family", (), {"settings": {"sample": {}}, "abilities": reconstruct})
        self.variables = {}
        self.tokenizer = tokenizers.train(self.test.captions, 300)

    def draw_rows(self, captions, index, seed):
        return self.test.read(np.array([self.index.get(caption, 0) for caption in captions]))


@pytest.fixture
def trials(smoke, monkeypatch):
    monkeypatch.setattr(measures, "load_extractor", lambda config: Extractor("Cells", "none", {}, means))
    config = smoke("shapes", "data.scenes=240")

    def trial(pipe):
        where = np.array(distinct(pipe.test))
        captions, read = [pipe.test.captions[i] for i in where], pipe.test.read
        source = pipe.test._replace(captions=captions, read=lambda index: read(where[index]), fingerprint="distinct")
        true = source.read(np.arange(COUNT))
        return measures.Trial(pipe, "test", source, 0, captions, true, measures.draw(pipe, captions, 0))

    return trial(Painter(config)), trial(Painter(config, always_the_same=True))


def test_alignment(trials):
    good, bad = map(measures.measure_alignment, trials)
    assert good["drawn"]["exact"]["value"] == good["geneval"]["overall"]["value"] == good["true"]["value"] == 1.0
    assert good["reconstructed"]["value"] == 1.0, "a level of difference does not matter"
    assert bad["drawn"]["exact"]["value"] <= 2 / COUNT and bad["geneval"]["overall"]["value"] < 0.5
    assert good["shuffled"]["exact"]["value"] == 0, "all captions differ"
    for atom in ("count", "colour"):
        assert good["shuffled"]["atoms"][atom]["n"] == COUNT
        assert good["drawn"]["atoms"][atom]["low"] > good["shuffled"]["atoms"][atom]["high"]
        # who always draws the same scores as often by whatever captions, up to that of the first picture
        assert abs(bad["drawn"]["atoms"][atom]["value"] - bad["shuffled"]["atoms"][atom]["value"]) < 1e-9


@pytest.mark.parametrize("count", [2, 3, 50])
def test_the_captions_of_others(count):
    order = measures.others(count)
    assert sorted(order) == list(range(count)) and not (order == np.arange(count)).any()
    np.testing.assert_array_equal(order, measures.others(count))


@pytest.fixture
def clothes(smoke, monkeypatch, tmp_path):
    """Pictures of one of three colours, which are their classes; (trial(labels drawn, encoder), how often it was fitted)."""
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    colours, fitted, fit = np.eye(3) * 200, [], classifier.fit

    def source(split, count):
        rng = np.random.default_rng(len(split))
        labels = np.arange(count) % 3
        images = (colours[labels][:, None, None] + rng.integers(0, 50, (count, 8, 8, 3))).astype(np.uint8)
        captions = [f"a photo of a {'rgb'[label]}" for label in labels]
        return sources.Source(captions, images.__getitem__, split, (), labels.tolist(), ("r", "g", "b"))

    known = {"train": source("train", 300), "test": source("test", 90)}
    monkeypatch.setattr(sources, "load", lambda config, split: known[split])
    monkeypatch.setattr(classifier, "fit", lambda *args: fitted.append(1) or fit(*args))

    def trial(drawn, encoder="transformer"):
        test, config = known["test"], smoke("shapes", f"text.encoder={encoder}")
        images = known["train"].read(np.asarray(drawn))  # example i of "train" is of class i % 3
        true = test.read(np.arange(len(drawn)))
        pipe = SimpleNamespace(config=config)
        return measures.Trial(pipe, "test", test, 0, test.captions[: len(drawn)], true, images)

    return trial, fitted


def test_classification(clothes):
    trial, fitted = clothes
    good, mistaken, collapsed = (
        measures.measure_classification(trial(drawn)) for drawn in (range(30), [0, 1, 1] * 10, [0] * 30)
    )
    for report in (good, mistaken, collapsed):
        assert report["conditional"] and report["real"]["accuracy"]["value"] == 1 and report["real"]["missing"] == []
    assert good["drawn"]["accuracy"]["value"] == 1 and good["drawn"]["missing"] == []
    assert mistaken["drawn"]["accuracy"]["value"] == pytest.approx(2 / 3) and mistaken["drawn"]["missing"] == ["b"]
    assert mistaken["drawn"]["confusion"] == [[10, 0, 0], [0, 10, 0], [0, 10, 0]]
    assert collapsed["drawn"]["accuracy"]["value"] == pytest.approx(1 / 3) and collapsed["drawn"]["missing"] == ["g", "b"]
    deaf = measures.measure_classification(trial([0, 0, 0, 1] * 5, "none"))
    assert deaf["conditional"] is False and deaf["drawn"]["missing"] == ["b"]
    assert deaf["drawn"]["share"] == {"r": 0.75, "g": 0.25, "b": 0.0} and deaf["real"]["missing"] == []
    assert fitted == [1], "one classifier judges them all"


def test_without_classes_there_is_nothing_to_classify(trials):
    with pytest.raises(ValueError, match="not of classes"):
        measures.measure_classification(trials[0])
    with pytest.raises(ValueError, match="have no classes"):
        measures.classifier_of(trials[0].source)


def test_drawn_pictures_are_looked_at_once(trials, monkeypatch):
    looked, features = [], measures.features
    monkeypatch.setattr(
        measures, "features", lambda extractor, x: looked.append(x is trials[0].drawn) or features(extractor, x)
    )
    for measure in (measures.measure_fidelity, measures.measure_diversity):
        measure(trials[0])
    assert sum(looked) == 1


def test_fidelity(trials):
    good, bad = map(measures.measure_fidelity, trials)
    assert good["extractor"] == "Cells" and good["rule"] == "none"
    assert good["precision_recall"] == {"precision": 1.0, "recall": 1.0}
    assert good["kid"]["drawn"]["value"] <= 0 < bad["kid"]["drawn"]["low"], "the same pictures are nearer than two samples are"
    assert good["kid"]["real"] == bad["kid"]["real"] and abs(good["kid"]["real"]["value"]) < bad["kid"]["drawn"]["value"]
    assert bad["precision_recall"]["recall"] < 0.5 and bad["density_coverage"]["coverage"] < 0.5
    assert "fid" not in good and "24 samples of 48 dimensions" in good["refused"]["frechet_distance"]


def test_only_inception_may_say_fid(trials, monkeypatch):
    few = Extractor("Three", "none", {}, lambda weights, x: {"features": means(weights, x)["features"][:, :3]}, fid=True)
    monkeypatch.setattr(measures, "load_extractor", lambda config: few)
    good, bad = map(measures.measure_fidelity, trials)
    assert good["fid"] == pytest.approx(0, abs=1e-12) and bad["fid"] > 1e-4 and "frechet_distance" not in good


def test_reconstruction(trials):
    report = measures.measure_reconstruction(trials[0])
    cells, again = (means({}, x)["maps"] for x in (trials[0].true, trials[0].true // 2 * 2))
    distance = np.mean(similarity.perceptual_distance(again, cells))
    assert report["map_distance"] == {"extractor": "Cells", "value": pytest.approx(distance, rel=1e-5)} and distance > 0
    assert 50 < report["psnr"] < 70 and report["ssim"] > 0.99  # at most one level of 255 away
    assert report["psnr_under_noise"]["clean"] == pytest.approx(report["psnr"]) and report["psnr_under_noise"]["grain_32"] < 25


def test_diversity(trials):
    good, bad = map(measures.measure_diversity, trials)
    assert good["of_one_caption"]["value"] == bad["of_one_caption"]["value"] == 0, "neither painter has any fancy"
    assert good["collapse"]["distance"] == pytest.approx(1) and bad["collapse"]["distance"] == 0
    assert bad["collapse"]["vendi"] == pytest.approx(1) and bad["collapse"]["duplicates"] == 1.0
    assert good["memorised"]["value"] <= 2 / COUNT and good["memorised"]["among"] == good["memorised"]["of"] == 240


def test_robustness(trials):
    """A painter that knows captions by heart can do nothing with another spelling."""
    good, _ = map(measures.measure_robustness, trials)
    assert good["clean"]["value"] == 1.0 and good["upper_case"]["value"] <= 2 / COUNT
    others = [report["value"] for name, report in good.items() if name not in ("clean", "mean")]
    assert good["mean"] == pytest.approx(np.mean(others)) and len(others) > 3


def test_retrieval(trials, monkeypatch):
    """With embeddings that are colours, a probe finds true pictures and cannot find what is always the same."""
    with pytest.raises(ValueError, match="have a grammar"):
        measures.measure_retrieval(trials[0])
    monkeypatch.setattr(alignment, "can_score", lambda captions: False)

    def embed(captions):
        if len(captions) == COUNT:
            return means({}, trials[0].true)["features"]
        return means({}, sources.load(trials[0].pipe.config.data, "train").read(np.arange(len(captions))))["features"]

    monkeypatch.setattr(minilm, "embed", embed)
    good, bad = map(measures.measure_retrieval, trials)
    assert good["drawn"] == good["true"] == bad["true"]
    assert good["drawn"]["captions_of_pictures"]["R@1"]["value"] > 0.9
    assert bad["drawn"]["captions_of_pictures"]["R@1"]["value"] <= 2 / COUNT


def test_features_of_real_pictures_are_kept(trials, tmp_path, monkeypatch):
    """Computed once for the same extractor, pictures and places, and again for any other."""
    monkeypatch.setenv("T2I_JAX_DATA", str(tmp_path))
    looked, read = [], trials[0].source.read
    source = trials[0].source._replace(read=lambda index: looked.append(len(index)) or read(index))
    extractor = measures.load_extractor(None)
    first = [measures.features_of(extractor, source, np.arange(5))["features"] for _ in range(2)]
    np.testing.assert_array_equal(first[0], first[1])
    np.testing.assert_allclose(first[0], means({}, read(np.arange(5)))["features"], rtol=1e-6)
    measures.features_of(extractor, source, np.arange(6))
    measures.features_of(extractor, source._replace(fingerprint="other"), np.arange(5))
    measures.features_of(extractor._replace(weights={"w": np.ones(1)}), source, np.arange(5))
    assert looked == [5, 6, 5, 5]
    assert not list(tmp_path.rglob("incomplete-*"))


def test_too_few_pictures_are_said(trials):
    def first(count):
        some = {name: getattr(trials[0], name)[:count] for name in ("captions", "true", "drawn")}
        return dataclasses.replace(trials[0], **some)

    with pytest.raises(ValueError, match=r"Frechet.*3 samples of 48"):
        measures.measure_fidelity(first(3))
    report = measures.measure_fidelity(first(5))
    assert "value" in report["kid"]["drawn"] and "precision" in report["precision_recall"], "what can be measured is"
    assert set(report["refused"]) == {"density_coverage", "frechet_distance"}
