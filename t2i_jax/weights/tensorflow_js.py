"""Weights of Keras layers in the files of TensorFlow.js: model.json, and binary files beside it."""

import json
import math
from collections.abc import Mapping

import numpy as np

from t2i_jax.weights.arrays import NamedArrays


def read(files: Mapping[str, bytes], source: str) -> NamedArrays:
    """Return the arrays by name, such as "F_0/kernel", as float32. Nothing is executed.

    files: {name: content} of one folder: "model.json" and the files that it names.
    source: where they come from, for messages.
    Raises ValueError for a file that is missing or damaged, and for arrays that are not float32.
    """
    try:
        groups = json.loads(files["model.json"])["weightsManifest"]
        arrays = {}
        for group in groups:
            content, start = b"".join(files[path] for path in group["paths"]), 0
            for about in group["weights"]:
                if about["dtype"] != "float32" or "quantization" in about:
                    raise ValueError(f"{about['name']} is not stored as float32")
                count = math.prod(about["shape"])
                array = np.frombuffer(content, "<f4", count, start)
                arrays[about["name"]] = array.reshape(about["shape"])
                start += 4 * count
            if start != len(content):
                raise ValueError(f"there are {len(content)} bytes for arrays of {start}")
    except KeyError as error:
        raise ValueError(f"{source} has no {error}: it is no model of TensorFlow.js") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{source} is damaged, or cannot be read here: {error}") from error
    return NamedArrays(arrays, source)
