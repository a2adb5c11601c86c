"""The output of each family's network for a batch: what a twin has to agree with.

Each function is (prepared, params {player: tree}, extra, batch) -> (inputs, output). `inputs` are
the numbers, besides the batch, that the network is given: times, noise, masks.
"""

import jax
import numpy as np

from t2i_jax.core.pictures import to_unit
from t2i_jax.families.diffusion import make_denoiser
from t2i_jax.runs.prepare import Prepared


def of_diffusion(prepared: Prepared, params, extra, batch) -> tuple[dict, jax.Array]:
    """Return the prediction for the pictures themselves, taken as noisy, at times across [0, 1]."""
    del extra
    denoiser, config = make_denoiser(prepared.config), prepared.config
    x, model = to_unit(batch["image"]), params["model"]
    t = np.linspace(0.05, 0.95, len(x), dtype=np.float32)

    @jax.jit
    def predict(model, x, t, text):
        condition = denoiser.encode_text(model, prepared.frozen, text)
        return denoiser.predict(model, x, t, condition)

    return {"t": t}, predict(model, x, t, batch["text"][config.text.encoder])


OUTPUTS = {"diffusion": of_diffusion}
