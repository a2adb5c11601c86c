"""Diffusion and flow matching: a network that removes noise (arXiv 2006.11239, 2209.03003, 2403.03206).

It works in pixels, or in the latents of a first stage (arXiv 2112.10752; first_stage.py). Rectified flow, DDPM and what lies
between differ only in `config.diffusion`: schedule, parameterization, weighting and the distribution of training times are
separate functions (t2i_jax/diffusion).
"""

import jax
import jax.numpy as jnp

from t2i_jax.by_name import make_of
from t2i_jax.diffusion.guidance import combine, scale_at
from t2i_jax.diffusion.parameterizations import target, to_noise, to_x0, weight
from t2i_jax.diffusion.samplers import make_sampler, time_grid
from t2i_jax.diffusion.schedules import make_schedule, make_time, shift
from t2i_jax.families.family import Context, Family, Variables, over, split_keys
from t2i_jax.first_stage import latents_of, make_latents, precomputed
from t2i_jax.ranker import ranked
from t2i_jax.text.condition import drop_captions, make_encoder, null_like, pretrained_texts

DIFFUSION = {
    "schedule": "rectified",
    "parameterization": "velocity",
    "weighting": "uniform",
    "time": "logit_normal",
    "mean": 0.0,
    "std": 1.0,
    "shift": 1.0,
}
SAMPLE = {
    "sampler": "heun",
    "steps": 25,
    "guidance": 2.0,
    "rescale": 0.0,
    "interval_low": 0.0,
    "interval_high": 1.0,
    "shift": 1.0,
    "candidates": 1,
}


def make(config, axis_name=None) -> Family:
    """Fields used: those of `make_latents`, text.*, model.* (`network`, a file of models/, and its fields), caption_dropout,
    diffusion.* (over DIFFUSION) and sample.* (over SAMPLE), ranker.

    Raises ValueError for an unknown name or field of these.
    """
    del axis_name  # nothing here goes across examples
    stage, name = make_latents(config), config.text.encoder
    diffusion = over(DIFFUSION, config.get("diffusion", {}), "diffusion")
    kind, weighting = diffusion["parameterization"], diffusion["weighting"]
    schedule, draw_time = make_schedule(diffusion["schedule"]), make_time(diffusion["time"])
    weight(weighting, kind, schedule(jnp.array(0.5)))  # so that a wrong name is found here
    encoder, net = make_encoder(config.text), make_of("models", config.model.network)(config.model)

    def init(rng, batch):
        rng_text, rng_net = jax.random.split(rng)
        length = batch["text"][name]["tokens"].shape[1]
        text_params, condition = encoder.init(rng_text, length)
        x = jnp.zeros((1, *stage.shape))
        return {"model": {"text": text_params, "net": net.init(rng_net, x, jnp.zeros(1), condition)["params"]}}, {}

    def encode_text(params, frozen, text, keys=None):
        return encoder.apply(params["model"]["text"], frozen.get("text"), text, keys)

    def loss(params, ctx: Context):
        """The weighted squared error of the network's own target; `velocity_mse` compares all parameterizations."""
        drop_keys, dropout_keys, time_keys, noise_keys = split_keys(ctx.keys, 4)
        text = ctx.batch["text"][name]
        if ctx.train:
            text = drop_captions(text, ctx.frozen["null_text"][name], drop_keys, config.caption_dropout)
        else:
            dropout_keys = None
        x0 = latents_of(stage, ctx)
        t = jax.vmap(lambda key: draw_time(key, diffusion["mean"], diffusion["std"]))(time_keys)
        t = shift(t, diffusion["shift"])
        noise = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(noise_keys)
        c = schedule(t[:, None, None, None])
        condition = encode_text(params, ctx.frozen, text, dropout_keys)
        x_t = c.alpha * x0 + c.sigma * noise
        prediction = net.apply({"params": params["model"]["net"]}, x_t, t, condition, dropout_keys)
        error = jnp.mean((prediction - target(kind, x0, noise, c)) ** 2, axis=(1, 2, 3))
        c = schedule(t)
        metrics = {"velocity_mse": weight("velocity", kind, c) * error}
        return weight(weighting, kind, c) * error, (ctx.extra, metrics)

    def sample(variables: Variables, inputs, keys, *, sampler, steps, guidance, rescale, interval_low, interval_high, shift):
        """Pictures uint8 [B, H, W, 3] by classifier-free guidance; the text is encoded once, cond and uncond go together.

        guidance, rescale and the interval of times are those of diffusion/guidance.py; shift is that of the time grid.
        """
        net_params = {"params": variables.params["model"]["net"]}
        text = inputs["text"][name]
        null = null_like(text, variables.frozen["null_text"][name])
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null)
        condition = encode_text(variables.params, variables.frozen, both)

        def predict(x, t):
            output = net.apply(net_params, jnp.concatenate([x, x]), jnp.broadcast_to(t, 2 * len(x)), condition)
            output = combine(*jnp.split(output, 2), scale_at(t, guidance, interval_low, interval_high), rescale)
            c = schedule(t)
            return to_x0(kind, output, x, c), to_noise(kind, output, x, c)

        start_keys, step_keys = split_keys(keys, 2)
        x = jax.vmap(lambda key: jax.random.normal(key, stage.shape))(start_keys)
        x = make_sampler(sampler)(predict, x, time_grid(steps, shift), schedule, step_keys)
        return stage.decode(variables.frozen.get("first_stage", {}), x)

    return Family(
        init=init,
        losses={"model": loss},
        abilities={"sample": ranked(sample, config)},
        settings={"sample": over(SAMPLE, config.get("sample", {}), "sample")},
        static=("sampler", "steps", "candidates"),
        make_frozen=lambda source: {"first_stage": fitted} if (fitted := stage.fit(source)) else {},
        pretrained=pretrained_texts(encoder),
        precompute=precomputed(stage, "latent") if config.first_stage.run else None,
    )
