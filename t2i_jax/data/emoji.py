"""`emoji`: about 1,460 things, each drawn in up to three art styles, with captions that name concept and style.

    "ringed planet, 3D render"        Fluent, 256 px
    "ringed planet, soft drawing"     Noto, 64 px
    "ringed planet, flat drawing"     Twemoji, 64 px

A picture has one caption, its CLDR name and the style: the name fits the picture exactly, the tags ("ily", "3") do not.
It has no article, for the names are things, plurals, adjectives and signs, and no simple rule is right for all.

Near-duplicates are left out (`select`): skin tones, gendered variants of a neutral emoji, spelled-out variants
("kiss: man, man"), and all but FLAGS of the country flags. A concept is in one split only, whatever the style, so
validation and test hold words and things never drawn in training.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from t2i_jax.data import npm, pictures, source

PACKAGES = {
    "@lobehub/fluent-emoji-3d@1.1.0": (
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g=="
    ),
    "emoji-datasource-google@16.0.0": (
        "sha512-ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A=="
    ),
    "emoji-datasource-twitter@16.0.0": (
        "sha512-7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ=="
    ),
    "emojibase-data@17.0.0": (
        "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA=="
    ),
}


class Style(NamedTuple):
    """An art style: how captions say it, the package that has it, and where in the package its pictures lie."""

    words: str
    spec: str
    prefix: str


STYLES = {
    "fluent": Style("3D render", "@lobehub/fluent-emoji-3d@1.1.0", "package/assets/"),
    "noto": Style("soft drawing", "emoji-datasource-google@16.0.0", "package/img/google/64/"),
    "twemoji": Style("flat drawing", "emoji-datasource-twitter@16.0.0", "package/img/twitter/64/"),
}
WORDS = ("emojibase-data@17.0.0", "package/en/data.json")
ATTRIBUTION = """# Where the pictures and words of `emoji` come from

| what | npm package | art or text by | licence |
|---|---|---|---|
| 3D renders | @lobehub/fluent-emoji-3d 1.1.0 | Fluent Emoji, Microsoft | MIT |
| soft drawings | emoji-datasource-google 16.0.0 | Noto Emoji, Google | Apache-2.0 (the package: MIT) |
| flat drawings | emoji-datasource-twitter 16.0.0 | Twemoji, Twitter and contributors | CC-BY-4.0 (the package: MIT) |
| names | emojibase-data 17.0.0 | Emojibase, from Unicode CLDR | MIT; Unicode License v3 |

Changed here: composed onto white and resized.
"""

RESOLUTIONS = (32, 64)  # two of the styles are drawn at 64 px, so more would only be blur
SPLITS = ("train", "validation", "test")
FLAGS = 24  # of 262 country flags

JOINER, VARIATION, PERSON = "200D", "FE0F", "1F9D1"
GENDERS = {"1F468": PERSON, "1F469": PERSON}  # man and woman, when something is joined to them


class Emoji(NamedTuple):
    """One to draw: `code` is its code points without variation selectors ("1F408-2B1B" has lost its joiner as well)."""

    code: str
    label: str
    split: str


def plain_code(code: str) -> str:
    """A hex code as files and tables variously write it, in one way: upper case, neither joiners nor selectors."""
    return "-".join(point for point in code.upper().split("-") if point not in (JOINER, VARIATION))


def concept(code: str) -> str:
    """What keeps variants in one split: the base code point; black cat and cat are both "1F408".

    A person with a profession, a keycap and a flag mean what is joined to the base, and are concepts of their own.
    """
    points = plain_code(code).split("-")
    whole = points[0] == PERSON or "20E3" in points or 0x1F1E6 <= int(points[0], 16) <= 0x1F1FF
    return "-".join(points) if whole else points[0]


def split_of(code: str) -> str:
    """The split of an emoji: 4 % of the concepts are "validation", 4 % "test", the rest "train"."""
    share = _chance(concept(code))
    return "validation" if share < 0.04 else "test" if share < 0.08 else "train"


def select(entries: Iterable[dict]) -> list[Emoji]:
    """Those to draw of an Emojibase table (dicts of `hexcode`, `label` and, unless it is a bare letter, `group`).

    Left out: letters and components, gendered variants of an emoji that has a neutral form, "X: more" where there is
    an X, what faces right, and all country flags but FLAGS. (Skin tones are not in the table's top level.)
    """
    entries = [e for e in entries if e.get("group") not in (None, 2)]
    codes, labels = {plain_code(e["hexcode"]) for e in entries}, {e["label"] for e in entries}

    def variant(entry):
        code, (before, colon, _) = plain_code(entry["hexcode"]), entry["label"].partition(":")
        points = [point for point in code.split("-") if point not in ("2640", "2642", "27A1")]
        if len(points) > 1:
            points = [GENDERS.get(point, point) for point in points]
        neutral = "-".join(points) or code
        return (neutral != code and neutral in codes) or (colon and before in labels)

    countries = [plain_code(e["hexcode"]) for e in entries if e["label"].startswith("flag: ")]
    flags = sorted(countries, key=lambda code: _chance("flag", code))[:FLAGS]  # not the chance that splits
    kept = [e for e in entries if not variant(e)]
    kept = [e for e in kept if plain_code(e["hexcode"]) not in set(countries) - set(flags)]
    return [Emoji(plain_code(e["hexcode"]), _label(e["label"]), split_of(e["hexcode"])) for e in kept]


def caption(label: str, style: str) -> str:
    """The caption of an emoji in one of STYLES."""
    return f"{label}, {STYLES[style].words}"


def draw(downloads: Path, resolution: int) -> list[dict]:
    """Every selected emoji in every style that has it, from the archives in `downloads`; shows progress.

    Dicts of `code`, `style`, `caption`, `split` and `image` (uint8 [R, R, 3]), in the order of code and style. Raises
    ValueError if an archive lacks the words or all the pictures of a style.
    """
    spec, name = WORDS
    table = next((content for _, content in npm.files(downloads / npm.file_name(spec), name)), None)
    if table is None:
        raise ValueError(f"{npm.file_name(spec)} has no {name}")
    wanted = {emoji.code: emoji for emoji in select(json.loads(table))}
    drawn = {}
    for style, (_, spec, prefix) in STYLES.items():
        archive = npm.file_name(spec)
        before = len(drawn)
        for file, content in tqdm(npm.files(downloads / archive, prefix), f"emoji: {style}", unit=" files", disable=None):
            emoji = wanted.get(plain_code(PurePosixPath(file).stem))
            if emoji and (emoji.code, style) not in drawn:
                image, said = pictures.decode(content, resolution), caption(emoji.label, style)
                drawn[emoji.code, style] = dict(emoji._asdict(), style=style, caption=said, image=image)
        if len(drawn) == before:
            raise ValueError(f"{archive} has no emoji in {prefix}")
    return [drawn[key] for key in sorted(drawn)]


def prepare(config, archives: str | None = None) -> None:
    """Fetches the archives (`t2i_jax/data/npm.py`) and prepares all splits at `config.resolution`; says where they are.

    `archives` is a folder of .tgz files fetched by other means. Interrupted, it leaves nothing that is taken as whole.
    """
    builder = _builder(config)
    if not builder.data_path.exists():
        npm.fetch(PACKAGES, _downloads(), archives)
        builder.prepare(_downloads())
    counts = ", ".join(f"{info.num_examples:,} {split}" for split, info in _builder(config).info.splits.items())
    print(f"emoji at {config.resolution} px: {counts}; licences: {builder.data_path / 'ATTRIBUTION.md'}", flush=True)


def make(config, split: str) -> source.Source:
    """The `emoji` source at `config.resolution` (32 or 64), in the `config.styles` (default: all of STYLES).

    All of a split is held in memory (12 MB at 32 px), ordered by code point and style. Prepares itself if the archives
    are there; raises FileNotFoundError if not, ValueError for an unknown split, style or resolution.
    """
    styles = getattr(config, "styles", None) or tuple(STYLES)
    styles = (styles,) if isinstance(styles, str) else tuple(styles)
    if split not in SPLITS:
        raise ValueError(f"emoji has no split {split!r}: it has {', '.join(SPLITS)}")
    if unknown := sorted(set(styles) - set(STYLES)):
        raise ValueError(f"emoji has no style {', '.join(map(repr, unknown))}: it has {', '.join(STYLES)}")
    if not _builder(config).data_path.exists():
        if npm.missing(PACKAGES, _downloads()):
            command = f"python main.py prepare --data=emoji --resolution={config.resolution}"
            raise FileNotFoundError(f"emoji is not prepared: run `{command}` first")
        prepare(config)
    records = _builder(config).as_data_source(split)
    records = [r for r in records.__getitems__(range(len(records))) if r["style"].decode() in styles]
    captions = [r["caption"].decode() for r in records]
    images = np.array([r["image"] for r in records], np.uint8).reshape(-1, config.resolution, config.resolution, 3)
    mark = source.fingerprint("emoji", split, config.resolution, images.tobytes(), *captions)
    # No other: names say directions and letters, the time on a clock, colours and sizes.
    return source.Source(
        captions, lambda positions: images[positions], mark, variants=dict.fromkeys(("crop", "noise"), captions)
    )


def _label(label):
    """The name as a person would say it: "flag: Malta" -> "flag of Malta", "keycap: 3" -> "keycap 3"."""
    return re.sub(r"^flag: ", "flag of ", label).replace(": ", " ")


def _chance(*text):
    """A fixed number in [0, 1) for some text, evenly spread."""
    return int.from_bytes(hashlib.sha256(" ".join(text).encode()).digest()[:8]) / 2**64


def _downloads():
    return source.data_dir() / "downloads"


def _builder(config):
    from t2i_jax.data import emoji_builder  # here, because it imports TFDS

    if config.resolution not in RESOLUTIONS:
        raise ValueError(f"emoji has no resolution {config.resolution!r}: it has {', '.join(map(str, RESOLUTIONS))}")
    return emoji_builder.Emoji(config=f"{config.resolution}px", data_dir=source.data_dir(), file_format="array_record")
