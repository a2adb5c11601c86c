"""The README.md of an exported sampler: what its inputs are, and a program that draws with it."""

from typing import Any

import jax

CARD = """# {name}

The sampler of a text-to-image model (family `{family}`) as one StableHLO program, written by
`jax.export` of JAX {version}. It needs JAX, and nothing of the project that trained it. It runs on:
{platforms}.

`sampler.jaxexport` is the program, `weights.safetensors` holds the arrays that it reads, and
`tokenizer.json` the vocabulary (Hugging Face tokenizers format). This program draws in this folder:

```python
import json

import jax
import numpy as np
from jax import export

tokens, mask = np.full(({batch}, {length}), 0, np.int32), np.zeros(({batch}, {length}), bool)
for row, ids in enumerate([{example}]):  # the tokens of each caption, here of ""
    tokens[row, : len(ids)], mask[row, : len(ids)] = ids, True

sampler = export.deserialize(bytearray(open("sampler.jaxexport", "rb").read()))
data = open("weights.safetensors", "rb").read()
first = 8 + int.from_bytes(data[:8], "little")
places = {{k: v["data_offsets"][0] for k, v in json.loads(data[8:first]).items()}}
shapes = jax.tree.unflatten(sampler.in_tree, sampler.in_avals)[0][0]
weights = {{
    name: np.frombuffer(data, x.dtype, x.size, first + places[name]).reshape(x.shape)
    for name, x in shapes.items()
}}
settings = {settings}
draw = jax.jit(sampler.call)
pictures = np.asarray(draw(weights, tokens, mask, np.uint32(0), np.int32(0), settings))
np.save("pictures.npy", pictures)  # uint8 [{batch}, height, width, 3]
```

The inputs, in this order:

1. `weights`: `{{name: array}}`.
2. `tokens`: int32 [{batch}, {length}], the captions, padded with 0; rows without one stay empty.
3. `mask`: bool [{batch}, {length}], true where there is a token.
4. the seed, uint32. The same seed gives the same pictures.
5. the place of the first picture among all that are drawn with this seed, int32: 0, {batch}, ...
6. `settings`, which can be changed without compiling again. {fixed}

The tokens of a caption, with the package `tokenizers`:

```python
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.encode_special_tokens = True
tokenizer.no_padding()
tokenizer.enable_truncation({length})
ids = tokenizer.encode("a caption").ids
```
"""


def card(name: str, config: Any, sampler: Any, exported: Any) -> str:
    """Return the text of README.md.

    name: of the folder.   sampler: a `stablehlo.Sampler`.   exported: a `jax.export.Exported`.
    """
    batch, length = sampler.tokens.shape
    fixed = ", ".join(f"{key}={value!r}" for key, value in sampler.fixed.items())
    return CARD.format(
        name=name,
        family=config.family,
        version=jax.__version__,
        platforms=", ".join(exported.platforms),
        batch=batch,
        length=length,
        example=[int(x) for x in sampler.tokens[0][sampler.mask[0]]],
        settings=sampler.settings,
        fixed=f"These are compiled in: {fixed}." if fixed else "",
    )
