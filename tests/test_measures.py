"""Each measure knows a model that draws the true pictures, and one that always draws the same."""

import numpy as np
import pytest

from t2i_jax import measures
from t2i_jax.data import source as sources
from t2i_jax.features.extractor import Extractor
from t2i_jax.metrics import alignment, similarity
from t2i_jax.text import minilm

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
    few = trials[0]._replace(captions=trials[0].captions[:3], true=trials[0].true[:3], drawn=trials[0].drawn[:3])
    with pytest.raises(ValueError, match=r"Frechet.*3 samples of 48"):
        measures.measure_fidelity(few)
    some = trials[0]._replace(captions=trials[0].captions[:5], true=trials[0].true[:5], drawn=trials[0].drawn[:5])
    report = measures.measure_fidelity(some)
    assert "value" in report["kid"]["drawn"] and "precision" in report["precision_recall"], "what can be measured is"
    assert set(report["refused"]) == {"density_coverage", "frechet_distance"}
