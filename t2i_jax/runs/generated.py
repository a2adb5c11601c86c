"""A folder of captioned pictures that a run draws, in the form that the source `folder` reads.

    metadata.jsonl     a row for each picture: file_name, text, index, sha256 of its pixels
    provenance.json    what was drawn by which weights, and how far it has come
    0000012.png        each with the metadata to draw it again

It goes on where it was interrupted, and what it then holds is the same as without interruption.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from t2i_jax.core.arguments import MAX_NUM, MAX_SEED, texts, whole_number
from t2i_jax.core.family import get_ability
from t2i_jax.core.files import atomic_path, check_folder, fingerprint, read_json, write_atomically
from t2i_jax.data.provenance import with_metadata
from t2i_jax.runs.drawn_picture import MAX_BATCH

TABLE, PROVENANCE = "metadata.jsonl", "provenance.json"


def generate_dataset(
    pipe: Any,
    captions: str | Sequence[str],
    num: int,
    seed: int,
    folder,
    say: Callable[[str], None] = print,
) -> dict:
    """Draw `num` pictures of each caption into a folder, and return its provenance.

    A picture whose pixels are those of an earlier one of the same caption is left out, and counted.
    pipe: a `Pipeline`. The captions take turns, so that a folder that is not complete has all.
    say: told how far it has come.
    Raises FileExistsError if the folder holds other files, ValueError if it was begun with other
    weights, captions or settings, or is damaged, and what `Pipeline.__call__` raises.
    """
    get_ability(pipe.family, "sample")
    if not (captions := texts("captions", captions)):
        raise ValueError("nothing to draw: give at least one caption")
    total = len(captions) * whole_number("num", num, 1, MAX_NUM)
    whole_number("seed", seed, 0, MAX_SEED)
    pipe.warn_if_cut(captions)
    folder, settings = check_folder(folder), pipe.settings({})
    asked = {
        "captions": fingerprint(*captions),
        "num": num,
        "seed": seed,
        "settings": settings,
        "weights": pipe.weights,
        "config": pipe.config.to_dict(),
    }
    asked = json.loads(json.dumps(asked))  # as it is read back
    done, rows = _begun(folder, asked)
    seen = {(row["text"], row["sha256"]) for row in rows}
    while done < total:
        index = np.arange(done, min(done + MAX_BATCH, total))
        prompts = [captions[int(i) % len(captions)] for i in index]
        padded = prompts + [""] * (MAX_BATCH - len(prompts))
        places = done + np.arange(MAX_BATCH)
        images = pipe.draw_rows(padded, places, seed, len(prompts))[: len(prompts)]
        new = []
        for row, (i, text, image) in enumerate(zip(index, prompts, images, strict=True)):
            sha256 = hashlib.sha256(image.tobytes()).hexdigest()
            if (text, sha256) in seen:
                continue
            seen.add((text, sha256))
            told = {"prompt": text, "index": int(i), "row": row, "batch": MAX_BATCH}
            told |= {name: asked[name] for name in ("seed", "settings", "weights", "config")}
            name = f"{i:07d}.png"
            with atomic_path(folder / name) as part:
                with_metadata(Image.fromarray(image), told).save(part)
            new.append({"file_name": name, "text": text, "index": int(i), "sha256": sha256})
        rows += new
        with open(folder / TABLE, "a", encoding="utf-8") as table:
            table.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in new)
        done += len(prompts)
        state = {**asked, "drawn": done, "left_out": done - len(rows)}
        write_atomically(folder / PROVENANCE, json.dumps(state, indent=1, sort_keys=True))
        say(f"{done:,} of {total:,} pictures, {done - len(rows):,} left out as equal to others")
    return read_json(folder / PROVENANCE)


def _begun(folder: Path, asked: dict) -> tuple[int, list[dict]]:
    """Return (how many pictures were drawn, the rows of the table) of a folder, new or begun.

    Rows that were written after the last provenance are left out of the table.
    """
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        state = {**asked, "drawn": 0, "left_out": 0}
        write_atomically(folder / PROVENANCE, json.dumps(state, indent=1, sort_keys=True))
        (folder / TABLE).write_text("", encoding="utf-8")
        return 0, []
    if not (folder / PROVENANCE).is_file():
        raise FileExistsError(
            f"{folder} is not empty, and this command did not begin it: name another folder"
        )
    state = read_json(folder / PROVENANCE)
    if other := [name for name in asked if state.get(name) != asked[name]]:
        raise ValueError(
            f"{folder} was begun with other {' and '.join(other)}: name another folder, or ask for "
            "the same"
        )
    table = folder / TABLE
    lines = table.read_text(encoding="utf-8").split("\n") if table.is_file() else []
    rows = []
    for line in filter(None, lines):
        try:
            row = json.loads(line)
        except ValueError:  # cut off in the middle
            break
        if row["index"] < state["drawn"]:
            rows.append(row)
    if len(rows) != (kept := state["drawn"] - state["left_out"]):
        raise ValueError(
            f"{table} has {len(rows):,} of the {kept:,} rows that {PROVENANCE} speaks of: it is "
            "damaged, so name another folder"
        )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(table, text)
    return state["drawn"], rows
