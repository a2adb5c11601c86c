r"""Do generated pictures help a classifier that has few real ones? On Fashion-MNIST.

The generator is trained on the same few pictures, so it knows no more than the classifier.

python scripts/few_real_pictures.py write --out=few_real
python main.py train --config=configs/fashion_vae.py:few --workdir=runs/fashion_few
python main.py generate-dataset --workdir=runs/fashion_few --prompts=few_real/prompts.txt \
    --num=500 --out=generated
python scripts/few_real_pictures.py compare --real=few_real --generated=generated
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from t2i_jax.config.recipes import FASHION_DATA
from t2i_jax.core.files import empty_folder
from t2i_jax.core.source import Source
from t2i_jax.data.caption_table import read_table
from t2i_jax.data.load import load_source
from t2i_jax.evaluation import classifier
from t2i_jax.metrics.captioning import mean_interval

# What is written: of which split of Fashion-MNIST, and which pictures of each class.
PARTS = {
    "train": ("train", slice(100)),
    "validation": ("validation", slice(10)),
    "test": ("validation", slice(10, 20)),
}
SEEDS = range(3)
PICTURES_SEEN = 30_000  # by every classifier, whatever it is fitted to


def write(out: str) -> None:
    """Write few real pictures as a folder with captions, and prompts.txt with their captions.

    None of them is of the test split of Fashion-MNIST.
    """
    folder, config = empty_folder(out, "--out"), ConfigDict(FASHION_DATA)
    for name, (split, part) in PARTS.items():
        source = load_source(config, split)
        labels, rows = np.asarray(source.labels), []
        chosen = [np.flatnonzero(labels == k)[part] for k in range(len(source.classes))]
        (folder / name).mkdir(parents=True)
        for i in np.concatenate(chosen):
            file, image = f"{i:05d}.png", source.read(np.array([i]))[0]
            Image.fromarray(image).save(folder / name / file)
            rows.append(json.dumps({"file_name": file, "text": source.captions[i]}) + "\n")
        (folder / name / "metadata.jsonl").write_text("".join(rows), encoding="utf-8")
    captions = sorted({source.captions[each[0]] for each in chosen})
    (folder / "prompts.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")


def labelled(folder: Path, test: Source) -> tuple[np.ndarray, np.ndarray]:
    """Return (pictures, labels) of a folder whose captions are those of classes of `test`.

    Raises ValueError for any other caption.
    """
    class_of = dict(zip(test.captions, test.labels, strict=True))
    rows = read_table(folder / "metadata.jsonl")
    if other := next((text for _, text in rows if text not in class_of), None):
        raise ValueError(
            f"{folder}: {other!r} is no caption of a class: use prompts.txt of `write`"
        )
    images = [np.asarray(Image.open(folder / file)) for file, _ in rows]
    return np.stack(images), np.array([class_of[text] for _, text in rows])


def compare(real: str, generated: str) -> dict[str, Any]:
    """Return the accuracy on `test` of classifiers fitted to real and to generated pictures.

    "both": half of what it sees is real. Each accuracy is a mean over SEEDS and over the test
    pictures, with its 95 % interval by bootstrap over these; "gain" is that of "both" over "real".
    """
    test = load_source(ConfigDict(FASHION_DATA), "test")
    pictures, labels = test.read(np.arange(len(test.captions))), np.asarray(test.labels)
    few, made = labelled(Path(real) / "train", test), labelled(Path(generated), test)
    times = max(1, round(len(made[0]) / len(few[0])))
    both = tuple(
        np.concatenate([np.repeat(a, times, 0), b]) for a, b in zip(few, made, strict=True)
    )
    report: dict[str, Any] = {"real pictures": len(few[0]), "generated pictures": len(made[0])}
    right = {}
    for name, (images, targets) in {"real": few, "generated": made, "both": both}.items():
        found = []
        for seed in SEEDS:
            fitted = classifier.fit(
                images.__getitem__, targets, len(test.classes), seed, PICTURES_SEEN
            )
            found.append(classifier.predict(fitted, pictures) == labels)
        right[name] = np.mean(found, axis=0)
        each = [round(float(np.mean(one)), 4) for one in found]
        report[name] = {**mean_interval(right[name]), "of each seed": each}
    report["gain"] = mean_interval(right["both"] - right["real"])
    return report


def main() -> None:
    """Read the arguments, and write the pictures or compare the classifiers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write").add_argument("--out", required=True)
    sub = commands.add_parser("compare")
    sub.add_argument("--real", required=True)
    sub.add_argument("--generated", required=True)
    args = parser.parse_args()
    if args.command == "write":
        write(args.out)
    else:
        print(json.dumps(compare(args.real, args.generated), indent=1))


if __name__ == "__main__":
    main()
