"""Fixtures for the tests of measures."""

import numpy as np
import pytest

from t2i_jax.evaluation import picture_features
from t2i_jax.evaluation.draw import draw
from t2i_jax.evaluation.measure import Trial
from tests.evaluation.fakes import CELLS, COUNT, Painter, distinct


@pytest.fixture
def trials(smoke, monkeypatch):
    """A trial of a model that draws the true pictures, and of one that always draws the same."""
    monkeypatch.setattr(picture_features, "load_extractor", lambda config: CELLS)
    config = smoke("shapes", "data.scenes=240")

    def trial(pipe):
        where = np.array(distinct(pipe.test))
        captions, read = [pipe.test.captions[i] for i in where], pipe.test.read
        source = pipe.test._replace(
            captions=captions, read=lambda index: read(where[index]), fingerprint="distinct"
        )
        true = source.read(np.arange(COUNT))
        return Trial(pipe, "test", source, 0, captions, true, draw(pipe, captions, 0))

    return trial(Painter(config)), trial(Painter(config, always_the_same=True))
