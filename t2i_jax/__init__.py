"""Text-to-image in JAX: `t2i_jax.load(workdir)` gives a pipeline from captions to pictures."""


def load(workdir, checkpoint="last", overrides=(), dtype="float32"):
    """See `t2i_jax.pipeline.load`; imported on use, so that `import t2i_jax` costs nothing."""
    from t2i_jax import pipeline

    return pipeline.load(workdir, checkpoint, overrides, dtype)
