"""Pictures and captions that a model thinks up, of a model that draws and captions.

A pair is drawn from both together, p(picture) p(caption | picture): the picture without a caption,
then a caption for it.
"""

from collections.abc import Mapping
from typing import Any

from t2i_jax.core.family import get_ability
from t2i_jax.runs.drawn import Drawn

# Without a caption, guidance has nothing to follow. The best of several candidates, as the model
# judges them, would be what it draws best, and not a sample.
PLAIN = {"guidance": 1.0, "candidates": 1}


def imagine(pipe: Any, num: int, seed: int, settings: Mapping[str, Any]) -> Drawn:
    """Return `num` pictures, each with its caption in the place of a prompt.

    pipe: a Pipeline.
    settings: of drawing; PLAIN where they say nothing else.
    Raises ValueError for a model that does not draw, or does not caption.
    """
    for name in ("sample", "caption"):
        get_ability(pipe.family, name)
    known = pipe.family.settings["sample"]
    plain = {name: value for name, value in PLAIN.items() if name in known}
    drawn = pipe("", num=num, seed=seed, **{**plain, **settings})
    return drawn._replace(prompts=pipe.caption(drawn.images, seed=seed))
