"""Drawing: the ability `sample`, and what it is compared with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from t2i_jax.benchmark.ours.train import first_batch, make_product, random_weights
from t2i_jax.benchmark.rows import Row
from t2i_jax.benchmark.side import Side
from t2i_jax.core.compile_cache import keep_compiled_programs
from t2i_jax.core.family import Variables, parameter_shapes
from t2i_jax.decoding.autoregressive import generate
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.families.conditioning import guide, make_conditioning
from t2i_jax.families.diffusion import make_denoiser
from t2i_jax.families.first_stage import load_codes
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.runs.prepare import Prepared, prepare_run


def prepare(row: Row, folder, argument: str) -> Side:
    """Return the side `argument`, a name of WAYS, of drawing one batch."""
    keep_compiled_programs()
    prepared = prepare_run(row.config(), folder / argument)
    params = random_weights(parameter_shapes(prepared.config, prepared.family))
    variables = Variables(params, {}, prepared.frozen)
    inputs = {"text": first_batch(prepared)["text"]}
    keys = jax.random.split(jax.random.key(0), prepared.config.train.batch_size)
    draw, times = WAYS[argument](prepared)
    compiled, flops = jax.jit(draw), count_flops(draw, variables, inputs, keys)
    variables, inputs = jax.device_put((variables, inputs))

    def step():
        for _ in range(times):
            found = compiled(variables, inputs, keys)
        jax.block_until_ready(found)

    return Side(step, make_product(), {"flops": times * flops, "pictures": len(keys)})


def whole(prepared: Prepared) -> tuple[Callable, int]:
    """Return (the ability `sample` with the settings of the config, 1)."""
    family = prepared.family
    settings = {k: v for k, v in family.settings["sample"].items() if k not in family.texts}

    def draw(variables, inputs, keys):
        return family.abilities["sample"](variables, inputs, keys, **settings)

    return draw, 1


def calls(prepared: Prepared) -> tuple[Callable, int]:
    """Return (one call of the network as the sampler makes it, how many it makes).

    The captions are encoded in each call; that is a table of words.
    """
    denoiser, conditioning = make_denoiser(prepared.config), make_conditioning(prepared.config)
    shape = denoiser.latents.shape

    def call(variables, inputs, keys):
        model, frozen = variables.params["model"], variables.frozen
        both = conditioning.with_null(conditioning.text_of(inputs), frozen)
        condition = denoiser.encode_text(model, frozen, both)
        x = jnp.zeros((2 * len(keys), *shape))
        return denoiser.predict(model, x, jnp.full(len(x), 0.5), condition)

    return call, prepared.config.sample.steps


def uncached(prepared: Prepared) -> tuple[Callable, int]:
    """Return (drawing codes with the whole decoder run anew for each of them, 1)."""
    config = prepared.config
    stage, conditioning = load_codes(config), make_conditioning(config)
    decoder = PrefixDecoder(codes=stage.size, grid=stage.grid, **config.model)
    settings = dict(prepared.family.settings["sample"])
    del settings["candidates"]
    guidance = settings.pop("guidance")

    def draw(variables, inputs, keys):
        model, frozen = variables.params["model"], variables.frozen
        codebook = stage.vectors(frozen["first_stage"])
        both = conditioning.with_null(conditioning.text_of(inputs), frozen)
        condition = conditioning.encode(model["text"], frozen, both)

        def logits_of(carry, codes, i):
            twice, net = jnp.concatenate([codes, codes]), {"params": model["net"]}
            logits = decoder.apply(net, condition, twice, codebook)
            assert isinstance(logits, jax.Array)
            return guide(logits[:, i], guidance), carry

        codes = generate(logits_of, (), decoder.length, keys, **settings)
        return stage.decode(frozen["first_stage"], codes)

    return draw, 1


WAYS = {"whole": whole, "calls": calls, "uncached": uncached}
