"""Pictures and captions of nothing given."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from t2i_jax.runs.drawn import Drawn
from t2i_jax.runs.imagined import imagine


class Grey:
    """Draws grey pictures whose level depends on the seed, and captions them by their level."""

    def __init__(self, abilities=("sample", "caption"), known=("guidance", "candidates")):
        self.family = SimpleNamespace(
            abilities=dict.fromkeys(abilities), settings={"sample": dict.fromkeys(known, 4.0)}
        )
        self.asked = {}

    def __call__(self, prompt, num, seed, **settings):
        self.asked = {"prompt": prompt, **settings}
        pictures = [np.full((2, 2, 3), 10 * seed + i, np.uint8) for i in range(num)]
        return Drawn([Image.fromarray(each) for each in pictures], [prompt] * num)

    def caption(self, images, seed):
        return [f"level {image.getpixel((0, 0))[0]}, seed {seed}" for image in images]


def test_each_picture_has_its_own_caption():
    pipe = Grey()
    drawn = imagine(pipe, 2, 3, {"temperature": 0.5})
    assert drawn.prompts == ["level 30, seed 3", "level 31, seed 3"]
    assert [image.getpixel((1, 1))[0] for image in drawn.images] == [30, 31]
    asked = {"prompt": "", "guidance": 1.0, "candidates": 1, "temperature": 0.5}
    assert pipe.asked == asked


def test_settings_are_those_that_the_family_has_and_the_callers_count():
    pipe = Grey(known=("guidance",))
    imagine(pipe, 1, 0, {"guidance": 2.0})
    assert pipe.asked == {"prompt": "", "guidance": 2.0}


@pytest.mark.parametrize(("can", "cannot"), [("sample", "caption"), ("caption", "sample")])
def test_a_model_that_cannot_do_both_is_refused(can, cannot):
    with pytest.raises(ValueError, match=f"cannot '{cannot}'; it can {can}"):
        imagine(Grey(abilities=(can,)), 1, 0, {})
