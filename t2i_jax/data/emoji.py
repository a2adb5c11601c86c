"""`emoji`: about 1,460 emoji in up to three art styles, with captions of name and style.

    "ringed planet, 3D render"        Fluent, 256 px
    "ringed planet, soft drawing"     Noto, 64 px
    "ringed planet, flat drawing"     Twemoji, 64 px

A picture has one caption: its CLDR name and the style. The name fits the picture exactly; the tags
of an emoji ("ily", "3") do not. The name gets no article: names are objects, plurals, adjectives
and signs, and no simple rule is right for all of them.

Near-duplicates are left out (`select`): skin tones, gendered variants of a neutral emoji,
spelled-out variants ("kiss: man, man"), and all but NUM_FLAGS of the country flags. A concept is in
one split only, whatever the style, so that validation and test have words and objects that training
never draws.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from t2i_jax.core import source
from t2i_jax.core.fields import Field
from t2i_jax.core.files import data_dir, fingerprint
from t2i_jax.data import pictures
from t2i_jax.download import npm

PACKAGES = {  # npm spec: its integrity
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60l"
        "UAG3h7g=="
    ),
    "emoji-datasource-google@16.0.0": (
        "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8D"
        "lPhfQ3A=="
    ),
    "emoji-datasource-twitter@16.0.0": (
        "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbu"
        "L2eyELQ=="
    ),
    "emojibase-data@17.0.0": (
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItlj"
        "HsTygjA=="
    ),
}


LICENCE = "one for each art style, in ATTRIBUTION.md beside the prepared data"


class Style(NamedTuple):
    """An art style.

    words: how captions name it.
    spec: the package that has it.
    prefix: where in the package its pictures are.
    """

    words: str
    spec: str
    prefix: str


STYLES = {
    "fluent": Style("3D render", "@lobehub/fluent-emoji-3d@1.1.0", "package/assets/"),
    "noto": Style("soft drawing", "emoji-datasource-google@16.0.0", "package/img/google/64/"),
    "twemoji": Style("flat drawing", "emoji-datasource-twitter@16.0.0", "package/img/twitter/64/"),
}
NAME_TABLE = ("emojibase-data@17.0.0", "package/en/data.json")  # package, file
ATTRIBUTION = """# Where the pictures and words of `emoji` come from

| what | npm package | art or text by | licence |
|---|---|---|---|
| 3D renders | @lobehub/fluent-emoji-3d 1.1.0 | Fluent Emoji, Microsoft | MIT |
| soft drawings | emoji-datasource-google 16.0.0 | Noto Emoji, Google \
| Apache-2.0 (the package: MIT) |
| flat drawings | emoji-datasource-twitter 16.0.0 | Twemoji, Twitter and contributors \
| CC-BY-4.0 (the package: MIT) |
| names | emojibase-data 17.0.0 | Emojibase, from Unicode CLDR | MIT; Unicode License v3 |

Changed here: composed onto white and resized.
"""

RESOLUTIONS = (32, 64)  # two of the styles are drawn at 64 px: more would only be blur
SPLITS = ("train", "validation", "test")
NUM_FLAGS = 24  # of 262 country flags
# Names say directions and letters, the time on a clock, colours and sizes.
AUGMENTATIONS = ("crop", "noise")

# Code points.
JOINER, VARIATION_SELECTOR, PERSON = "200D", "FE0F", "1F9D1"
FEMALE_SIGN, MALE_SIGN, RIGHT_ARROW = "2640", "2642", "27A1"
NEUTRAL = {"1F468": PERSON, "1F469": PERSON}  # man and woman, if joined to something
KEYCAP = "20E3"
FIRST_FLAG_LETTER, LAST_FLAG_LETTER = 0x1F1E6, 0x1F1FF
COMPONENT_GROUP = 2  # of Emojibase: skin tones and hair


class Emoji(NamedTuple):
    """An emoji to draw.

    code: its code points, without joiners and variation selectors: "1F408-2B1B" is the black cat.
    """

    code: str
    label: str
    split: str


def canonical_code(code: str) -> str:
    """Return a hex code in one spelling: upper case, without joiners and variation selectors.

    Files and tables spell codes in several ways.
    """
    dropped = (JOINER, VARIATION_SELECTOR)
    return "-".join(point for point in code.upper().split("-") if point not in dropped)


def concept(code: str) -> str:
    """Return what keeps variants in one split: the base code point.

    Black cat and cat are both "1F408". A person with a profession, a keycap and a flag mean what is
    joined to the base: they are concepts of their own.
    """
    points = canonical_code(code).split("-")
    is_flag = FIRST_FLAG_LETTER <= int(points[0], 16) <= LAST_FLAG_LETTER
    whole = points[0] == PERSON or KEYCAP in points or is_flag
    return "-".join(points) if whole else points[0]


def split_of(code: str) -> str:
    """Return the split of an emoji: 4 % of the concepts are "validation", 4 % are "test"."""
    share = _uniform_hash(concept(code))
    return "validation" if share < 0.04 else "test" if share < 0.08 else "train"


def select(entries: Iterable[dict]) -> list[Emoji]:
    """Return the emoji to draw, of an Emojibase table.

    entries: dicts of `hexcode`, `label` and, unless it is a bare letter, `group`.

    Left out: letters and components, gendered variants of an emoji that has a neutral form,
    "X: more" if there is an X, emoji that face right, and all country flags but NUM_FLAGS. (Skin
    tones are not in the table's top level.)
    """
    entries = [e for e in entries if e.get("group") not in (None, COMPONENT_GROUP)]
    codes, labels = {canonical_code(e["hexcode"]) for e in entries}, {e["label"] for e in entries}

    def is_variant(entry):
        code = canonical_code(entry["hexcode"])
        before, colon, _ = entry["label"].partition(":")
        dropped = (FEMALE_SIGN, MALE_SIGN, RIGHT_ARROW)
        points = [point for point in code.split("-") if point not in dropped]
        if len(points) > 1:
            points = [NEUTRAL.get(point, point) for point in points]
        neutral = "-".join(points) or code
        return (neutral != code and neutral in codes) or (colon and before in labels)

    countries = [canonical_code(e["hexcode"]) for e in entries if e["label"].startswith("flag: ")]
    # Another hash than that of the split: else all flags kept would be in one split.
    by_hash = sorted(countries, key=lambda code: _uniform_hash("flag", code))
    flags = by_hash[:NUM_FLAGS]
    kept = [e for e in entries if not is_variant(e)]
    kept = [e for e in kept if canonical_code(e["hexcode"]) not in set(countries) - set(flags)]
    return [
        Emoji(canonical_code(e["hexcode"]), _readable_name(e["label"]), split_of(e["hexcode"]))
        for e in kept
    ]


def caption(label: str, style: str) -> str:
    """Return the caption of an emoji in one of STYLES."""
    return f"{label}, {STYLES[style].words}"


def decode_archives(downloads: Path, resolution: int) -> list[dict]:
    """Return every selected emoji in every style that has it. Shows progress.

    downloads: the folder of the archives of PACKAGES.

    The result has dicts of `code`, `style`, `caption`, `split` and `image` (uint8 [R, R, 3]), in
    the order of code and style. Raises ValueError if an archive lacks the names or all pictures of
    a style.
    """
    spec, name = NAME_TABLE
    table = next((content for _, content in npm.files(downloads / npm.file_name(spec), name)), None)
    if table is None:
        raise ValueError(f"{npm.file_name(spec)} has no {name}")
    wanted = {emoji.code: emoji for emoji in select(json.loads(table))}
    decoded = {}
    for style, (_, spec, prefix) in STYLES.items():
        archive = npm.file_name(spec)
        before = len(decoded)
        files = npm.files(downloads / archive, prefix)
        for file, content in tqdm(files, f"emoji: {style}", unit=" files", disable=None):
            emoji = wanted.get(canonical_code(PurePosixPath(file).stem))
            if emoji and (emoji.code, style) not in decoded:
                decoded[emoji.code, style] = {
                    **emoji._asdict(),
                    "style": style,
                    "caption": caption(emoji.label, style),
                    "image": pictures.decode(content, resolution),
                }
        if len(decoded) == before:
            raise ValueError(f"{archive} has no emoji in {prefix}")
    return [decoded[key] for key in sorted(decoded)]


def prepare(config, archives: str | None = None) -> None:
    """Fetch the archives and prepare all splits at `config.resolution`. Prints where they are.

    archives: a folder of .tgz files that were fetched by other means, or None for npm.

    If it is interrupted, it leaves nothing that looks complete. Raises what `npm.fetch` and
    `decode_archives` raise.
    """
    builder = _builder(config)
    if not builder.data_path.exists():
        npm.fetch(PACKAGES, _downloads(), archives)
        builder.prepare(_downloads())
    counts = ", ".join(
        f"{info.num_examples:,} {split}" for split, info in _builder(config).info.splits.items()
    )
    licences = builder.data_path / "ATTRIBUTION.md"
    print(f"emoji at {config.resolution} px: {counts}; licences: {licences}", flush=True)


def fields(config) -> dict[str, Field]:
    """Return the fields of `config.data` for emoji."""
    del config
    return {
        "resolution": Field(32, "pixels a side", choices=RESOLUTIONS),
        "styles": Field(tuple(STYLES), "art styles of the pictures", choices=tuple(STYLES)),
    }


def make(config, split: str) -> source.Source:
    """Return the `emoji` source at `config.resolution`, in `config.styles` (default: all STYLES).

    A split is held in memory (12 MB at 32 px), ordered by code point and style. Prepares itself if
    the archives are there. Raises FileNotFoundError if they are not, and ValueError for an unknown
    split, style or resolution.
    """
    styles = getattr(config, "styles", None) or tuple(STYLES)
    styles = (styles,) if isinstance(styles, str) else tuple(styles)
    if split not in SPLITS:
        raise ValueError(f"emoji has no split {split!r}: it has {', '.join(SPLITS)}")
    if unknown := sorted(set(styles) - set(STYLES)):
        raise ValueError(
            f"emoji has no style {', '.join(map(repr, unknown))}: it has {', '.join(STYLES)}"
        )
    side = config.resolution
    if not _builder(config).data_path.exists():
        if npm.missing(PACKAGES, _downloads()):
            command = f"python main.py prepare --data=emoji --resolution={side}"
            raise FileNotFoundError(f"emoji is not prepared: run `{command}` first")
        prepare(config)
    records = _builder(config).as_data_source(split)
    records = [
        r for r in records.__getitems__(range(len(records))) if r["style"].decode() in styles
    ]
    captions = [r["caption"].decode() for r in records]
    images = np.array([r["image"] for r in records], np.uint8).reshape(-1, side, side, 3)
    mark = fingerprint("emoji", split, side, images.tobytes(), *captions)
    return source.Source(
        captions,
        lambda positions: images[positions],
        mark,
        variants=dict.fromkeys(AUGMENTATIONS, captions),
    )


def _readable_name(label):
    """Return a name as a person would say it: "flag: Malta" -> "flag of Malta"."""
    return re.sub(r"^flag: ", "flag of ", label).replace(": ", " ")


def _uniform_hash(*text):
    """Return a fixed number in [0, 1) for some text, uniform over texts."""
    return int.from_bytes(hashlib.sha256(" ".join(text).encode()).digest()[:8]) / 2**64


def _downloads():
    return data_dir() / "downloads"


def _builder(config) -> Any:
    from t2i_jax.data import emoji_builder  # here, because it imports TFDS

    if config.resolution not in RESOLUTIONS:
        known = ", ".join(map(str, RESOLUTIONS))
        raise ValueError(f"emoji has no resolution {config.resolution!r}: it has {known}")
    return emoji_builder.Emoji(
        config=f"{config.resolution}px", data_dir=data_dir(), file_format="array_record"
    )
