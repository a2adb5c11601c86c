"""The commands that redraw a picture by networks that look at pictures: stylize and dream."""

from typing import Any

from t2i_jax.core.arguments import MAX_SEED
from t2i_jax.core.command_line import filled, number, whole

NETWORK = "efficientnet_lite0"
# What `stylize` draws with: the defaults of its settings, and the highest strength.
METHODS = {
    "optimise": ({"strength": 30.0, "steps": 150, "network": NETWORK, "path": ""}, 1e6),
    "magenta_style": ({"strength": 1.0}, 1.0),
}
OF_RUNS = ({"strength": 1.0}, 1.0)


def add_commands(command) -> None:
    """Add `stylize` and `dream`. command: (name, help) -> the parser of a command."""
    sub = command("stylize", "draw a picture in the style of another")
    _add_shared(sub, "pictures to draw")
    help = "the picture whose style is taken"
    sub.add_argument("--style", type=filled, required=True, metavar="Y.png", help=help)
    help = "optimise the pixels, or draw in one pass with published networks (optimise)"
    sub.add_argument("--method", choices=tuple(METHODS), help=help)
    sub.add_argument("--workdir", help="a run that draws in one pass (AdaIN), instead of a method")
    help = "optimise: weight of the style over that of the content (30); else from 0 to 1 (1)"
    sub.add_argument("--strength", type=number(0.0, 1e6), help=help)
    sub.add_argument("--steps", type=whole(1, 100_000), help="optimise: of Adam (150)")
    sub = command("dream", "change a picture so that a network sees more in it")
    _add_shared(sub, "pictures to change")
    help = "features, logits or map0, map1, ... (map3)"
    sub.add_argument("--layer", default="map3", help=help)
    sub.add_argument("--channel", type=whole(0, 2**20), help="of the layer (all)")
    sub.add_argument("--octaves", type=whole(1, 20), default=3, help="sizes of the picture (3)")
    sub.add_argument("--steps", type=whole(1, 10_000), default=20, help="of each octave (20)")
    help = "same seed, same result (0)"
    sub.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help=help)


def _add_shared(sub, what: str) -> None:
    sub.add_argument(
        "--image", action="append", type=filled, required=True, metavar="X.png", help=what
    )
    help = f"a network of t2i_jax/features ({NETWORK})"
    sub.add_argument("--network", help=help)
    sub.add_argument("--path", help="the network's weights, if they are not prepared")
    help = "longer side of the result in pixels (256)"
    sub.add_argument("--side", type=whole(8, 4096), default=256, help=help)
    sub.add_argument("--out", default="samples", help="folder for the pictures (samples)")


def stylize(args, overrides) -> None:
    """Draw pictures in the style of another."""
    from t2i_jax.features import magenta_style, style
    from t2i_jax.features.extractor import load
    from t2i_jax.pipeline import load as load_run

    chosen, images = _settings(args), _images(args, overrides)
    taken, strength = read_within(args.style, args.side), chosen["strength"]
    if args.workdir:
        made = [(x, None) for x in load_run(args.workdir).stylize(images, taken, strength=strength)]
    elif args.method in (None, "optimise"):
        network, steps = load(chosen["network"], chosen["path"]), chosen["steps"]
        made = [style.stylize(network, image, taken, strength, steps) for image in images]
    else:
        weights = magenta_style.load()
        made = [(magenta_style.stylize(weights, x, taken, strength), None) for x in images]
    _save(args, made)


def _settings(args) -> dict[str, Any]:
    """Return the settings of the method, or of a run. Raises ValueError for one of another."""
    if args.workdir and args.method:
        raise ValueError("--workdir names a run, which is a method by itself: leave out --method")
    name = "a run" if args.workdir else args.method or "optimise"
    defaults, highest = METHODS.get(name, OF_RUNS)
    given = {key: getattr(args, key) for key in METHODS["optimise"][0]}
    given = {key: value for key, value in given.items() if value is not None}
    if other := given.keys() - defaults.keys():
        raise ValueError(f"--{min(other)} is of --method=optimise, and not of {name}")
    if given.get("strength", 0) > highest:
        raise ValueError(f"--strength of {name} is from 0 to {highest:g}")
    return {**defaults, **given}


def dream(args, overrides) -> None:
    """Change pictures so that a layer of a network answers more strongly."""
    from t2i_jax.features import dream as dreams
    from t2i_jax.features.extractor import load

    images = _images(args, overrides)
    network = load(args.network or NETWORK, args.path or "")
    how = {"octaves": args.octaves, "steps": args.steps, "seed": args.seed}
    _save(args, [dreams.dream(network, x, args.layer, args.channel, **how) for x in images])


def read_within(path, side: int) -> Any:
    """Read a picture, resized so that its longer side is `side` pixels: uint8 [H, W, 3]."""
    import numpy as np
    from PIL import Image

    from t2i_jax.data.pictures import read_whole

    whole_picture = Image.fromarray(read_whole(path))
    factor = side / max(whole_picture.size)
    size = [max(1, round(each * factor)) for each in whole_picture.size]
    return np.asarray(whole_picture.resize(size, Image.Resampling.LANCZOS))


def _images(args, overrides) -> list:
    """Return the pictures to change."""
    from t2i_jax.core.files import check_folder

    if overrides:
        raise ValueError(f"{args.command} has no config: leave out --config")
    check_folder(args.out)
    return [read_within(path, args.side) for path in args.image]


def _save(args, made) -> None:
    """Save pictures, given with their losses or scores, or None; print how these changed."""
    import numpy as np
    from PIL import Image

    from t2i_jax.runs.drawn import Drawn

    images = [Image.fromarray(np.asarray(image)) for image, _ in made]
    paths = Drawn(images, args.image).save(args.out)
    for path, name, (_, values) in zip(paths, args.image, made, strict=True):
        each = [] if values is None else np.atleast_2d(values)  # a row for each octave
        way = ", ".join(f"{one[0]:.4g} to {one[-1]:.4g}" for one in each)
        what = "loss" if args.command == "stylize" else "score"
        print(f"{path}  {name}" + (f": {what} {way}" if way else ""))
