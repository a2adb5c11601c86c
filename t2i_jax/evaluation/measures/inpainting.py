"""Does a model draw a hidden object again, as the caption says, and leave all else alone?"""

import numpy as np

from t2i_jax.core.family import get_ability
from t2i_jax.data.render import BACKGROUND
from t2i_jax.evaluation.column import Column, at, format_share
from t2i_jax.evaluation.draw import inpaint
from t2i_jax.evaluation.measure import Measure, Trial
from t2i_jax.metrics import alignment
from t2i_jax.metrics.inpainting import box_around
from t2i_jax.metrics.word_maps import objects_of

CELL_PX = 4  # the box grows to a grid of so many pixels: that of the patches in configs/


def applies(trial: Trial) -> None:
    """Raise ValueError for a model that does not inpaint, and for captions of another grammar."""
    get_ability(trial.pipe.family, "inpaint")
    if trial.split == "paraphrase" or not alignment.can_score(trial.captions):
        raise ValueError("these captions do not say which object is where: take those of `shapes`")


def run(trial: Trial) -> dict:
    """Return the strict scores of true pictures in which one of two objects was drawn again.

    The object that the caption names first is hidden by a box, and the model is given the whole
    caption. "inpainted": of the result. "pasted": of the true picture with that box of what the
    model drew of the caption alone, for comparison. "hidden": of the picture with an empty box.
    "drawn": of what the model drew of the caption alone. "outside_equal": the share of results
    whose pixels outside the box are those of the picture.
    Raises ValueError if no picture has two objects.
    """
    boxes = {}
    for i, (image, caption) in enumerate(zip(trial.true, trial.captions, strict=True)):
        found = objects_of(image, caption)
        if len(found) == 2:
            boxes[i] = box_around(found[0].mask, CELL_PX)
    if not boxes:
        raise ValueError("none of these pictures shows two named objects")
    chosen, masks = list(boxes), np.stack(list(boxes.values()))
    captions, true = [trial.captions[i] for i in chosen], trial.true[chosen]
    hidden = np.where(masks[..., None], np.array(BACKGROUND, np.uint8), true)
    painted = inpaint(trial.pipe, captions, hidden, masks, trial.seed)
    made = {"inpainted": painted, "hidden": hidden}
    if len(trial.drawn):
        made["drawn"] = trial.drawn[chosen]
        made["pasted"] = np.where(masks[..., None], trial.drawn[chosen], true)
    equal = (painted == true).all(-1) | masks
    rng = np.random.default_rng(trial.seed)
    return {
        **{name: alignment.score(images, captions)["strict"] for name, images in made.items()},
        "outside_equal": alignment.share_interval(equal.all((1, 2)), rng),
        "hidden_share": float(masks.mean()),
    }


def lines(report: dict, setting: dict) -> list[str]:
    """Return the scores, and in how many pictures anything outside the box changed."""
    scores = {
        name: format_share(report[name])
        for name in ("inpainted", "pasted", "hidden", "drawn")
        if name in report
    }
    told = ", ".join(f"{name} {score}" for name, score in scores.items())
    kept, count = report["outside_equal"]["value"], report["inpainted"]["n"]
    return [
        f"one of two objects drawn again, {count} pictures, {report['hidden_share']:.0%} hidden: "
        f"strict {told}; all pixels outside are equal in {kept:.0%}"
    ]


MEASURE = Measure(
    name="inpainting",
    order=73,
    applies=applies,
    run=run,
    lines=lines,
    columns=(
        Column(
            title="inpainted",
            value=at("inpainting", "inpainted", "value"),
            interval=at("inpainting", "inpainted"),
            format="{:.3f}",
            better=1,
            meaning="one of two objects drawn again, strict (share)",
            order=56,
        ),
    ),
)
