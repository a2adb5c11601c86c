"""The fields that every experiment has, with their defaults, meanings and ranges."""

import copy
from typing import Any

from ml_collections import ConfigDict

from t2i_jax.core.arguments import MAX_SEED
from t2i_jax.core.fields import Field, defaults_of
from t2i_jax.core.registry import names_with

# With a decay of 1, a running mean would never change.
LARGEST_DECAY = 0.999999

# {section: {name: Field}}; the section "" is the top level. What is not said by a default alone is
# in the meaning. Names that are listed elsewhere too (optimizers, schedules, augmentations) are
# compared by a test: importing them would import JAX, and a wrong name should be refused at once.
BASE: dict[str, dict[str, Field]] = {
    "": {
        "family": Field("", "what is learned: a file of t2i_jax/families"),
        "seed": Field(0, "seed of all randomness", 0, MAX_SEED),
        "init_from": Field(
            "", "start from the averaged weights of this run, or from this published language model"
        ),
        "caption_dropout": Field(
            0.1, "probability of an empty caption in training, for guidance", 0.0, 1.0
        ),
        "word_dropout": Field(
            0.0, "probability of leaving out each token of a caption in training", 0.0, 0.9
        ),
        "ema_decay": Field(
            0.999, "decay of the running average of the weights", 0.0, LARGEST_DECAY
        ),
    },
    "data": {
        "name": Field("", "the data source: a file of t2i_jax/data"),
    },
    "text": {
        "encoder": Field("transformer", "a file of t2i_jax/text; each uses the fields that it has"),
        "length": Field(16, "tokens of a caption; longer ones are cut", 1, 2**16),
        "vocab_size": Field(1024, "tokens in the vocabulary", 1, 2**24),
        "width": Field(128, "numbers in the vector of a token", 1, 2**16),
        "depth": Field(2, "transformer blocks", 0, 1024),
        "heads": Field(4, "attention heads", 1, 1024),
        "window": Field(0, "tokens on either side that are mixed into each vector", 0, 1024),
        "frozen": Field(True, "whether published weights stay as they are (minilm)"),
        "cell": Field(
            "gru", "one direction, or bilstm: both (recurrent)", choices=("gru", "bilstm")
        ),
        "dropout": Field(0.0, "dropout rate (recurrent, transformer)", 0.0, 0.999),
    },
    "first_stage": {
        "run": Field(
            "", "run that gives the codes or latents to learn; empty: patches, or the pixels"
        ),
        "config": Field({}, "that run's config; filled in when training starts"),
        "cache": Field(False, "encode all pictures once and keep the result in the data folder"),
    },
    "reranker": {
        "run": Field(
            "", "run that ranks candidates: a captioner, or one that draws token by token"
        ),
        "config": Field({}, "that run's config; filled in when it is used"),
    },
    "lora": {
        "rank": Field(
            0, "of an adapter, trained in place of the weights of init_from; 0: none", 0, 4096
        ),
        "scale": Field(1.0, "of the adapter's product: alpha / rank of the paper"),
        "paths": Field(
            "/kernel$", 'regular expression: kernels with such a path ("model/net/...") get one'
        ),
        "add": Field(
            "", 'used when drawing: "RUN_OR_FILE:WEIGHT", several with commas; without it 1'
        ),
    },
    # Of training pictures, on the device. Only what the data declares to keep its captions true.
    "augment": {
        "flip": Field(0.0, "probability of mirroring a picture left to right", 0.0, 1.0),
        "rotation": Field(0.0, "largest rotation either way, in degrees", 0.0, 180.0),
        "scale": Field(0.0, "largest change of size: 0.2 is 1.2 times at most", 0.0, 1.0),
        "crop": Field(0.0, "largest shift, as a fraction of the side", 0.0, 0.5),
        "colour": Field(0.0, "strength of brightness, saturation and contrast", 0.0, 1.0),
        "noise": Field(0.0, "standard deviation of noise, of pictures in [-1, 1]", 0.0, 1.0),
    },
    "optim": {
        "name": Field("adamw", "the optimizer", choices=("adamw", "lion", "muon", "sgd")),
        "learning_rate": Field(1e-3, "the highest learning rate, after the warm-up", 0.0),
        "schedule": Field(
            "cosine",
            "how the learning rate goes on after the warm-up",
            choices=("constant", "cosine", "linear", "exponential", "step"),
        ),
        "warmup": Field(100, "steps over which the learning rate rises", 0, 10**9),
        "decay_rate": Field(
            0.1, "exponential: what is left at the end; step: at each of decay_at", 0.0, 1.0
        ),
        "decay_at": Field((0.5, 0.75), "step: where it falls, as fractions of the run", 0.0, 1.0),
        "weight_decay": Field(0.01, "decay of matrices, apart from the gradients", 0.0),
        "l1": Field(0.0, "weight of the sum of |w| over matrices in the loss", 0.0),
        "l2": Field(0.0, "weight of half the sum of w^2 over matrices in the loss", 0.0),
        "clip": Field(1.0, "largest norm of the gradient of a step; 0: no limit", 0.0),
        "clip_examples": Field(
            0.0, "largest norm of the gradient of each example; 0: no limit", 0.0
        ),
        "gradient_noise": Field(
            0.0, "standard deviation of noise on the mean gradient; 0: none", 0.0
        ),
        "b1": Field(0.9, "decay of the mean of gradients; of sgd: momentum", 0.0, LARGEST_DECAY),
        "b2": Field(0.99, "decay of the mean of squared gradients", 0.0, LARGEST_DECAY),
        "adam_scale": Field(
            1.0, "muon: learning rate of tables, norms and biases, over that of matrices", 0.0
        ),
        "freeze": Field(
            "", 'regular expression: parameters with such a path ("model/text/embed") stay fixed'
        ),
        "players": Field({}, 'fields of one player that differ: {"discriminator": {"b1": 0.0}}'),
    },
    # DP-SGD: training/privacy.py, docs/privacy.md.
    "privacy": {
        "clip": Field(
            0.0, "largest norm of the gradient of each example; 0: not trained privately", 0.0
        ),
        "noise": Field(
            1.0,
            "standard deviation of the noise on the sum of clipped gradients, a multiple of clip",
            0.0,
        ),
        "epsilon": Field(8.0, "the most that all steps may spend", 0.0),
        "delta": Field(1e-6, "of (epsilon, delta): much less than 1 / training examples", 0.0, 1.0),
    },
    "train": {
        "steps": Field(1000, "training steps", 1, 10**9),
        "batch_size": Field(64, "examples in a step, over all devices", 1, 2**20),
        "accumulate": Field(1, "parts of a batch that are computed one after another", 1, 2**20),
        "log_every": Field(50, "steps between two lines of metrics", 1, 10**9),
        "eval_every": Field(500, "steps between validation losses and sheets; 0: never", 0, 10**9),
        "save_every": Field(500, "steps between checkpoints", 1, 10**9),
        "score_every": Field(0, "steps between scores of drawn pictures; 0: never", 0, 10**9),
        "score_examples": Field(128, "validation captions drawn for a score", 1, 10**6),
        "validation_examples": Field(512, "examples of a validation loss", 1, 10**9),
        "grid": Field(16, "pictures on a contact sheet", 1, 4096),
        "spike": Field(
            0.0,
            "a loss this many times that of the line before goes back to a checkpoint before that "
            "line, and leaves out the batches in between; 0: never",
            0.0,
        ),
        "hang_s": Field(
            1800.0,
            "seconds that a step or an evaluation lasts until a message names it; 0: never",
            0.0,
        ),
        "matmul_precision": Field(
            "default",
            "of float32 products on GPUs and TPUs (jax_default_matmul_precision)",
            choices=("default", "high", "highest"),
        ),
        "reader": Field(
            "auto",
            "what reads batches ahead; auto: tf.data where TensorFlow is installed, else threads",
            choices=("auto", "tf.data", "threads"),
        ),
        "trackers": Field(
            ("tensorboard",),
            "where the run can be watched (docs/training.md)",
            choices=("tensorboard", "wandb", "mlflow"),
        ),
    },
    "evaluate": {
        "num": Field(1000, "captions drawn for a score", 1, 10**7),
        "batch": Field(64, "pictures drawn at once", 1, 2**16),
        "extractor": Field(
            "efficientnet_lite0",
            "network that gives the features of pictures",
            choices=tuple(names_with("features", "make")),
        ),
        "extractor_path": Field(
            "",
            "its weights; empty: those of `main.py prepare --weights=NAME`. Or a run that embeds "
            "pictures and captions, which is the extractor then",
        ),
    },
    "parallel": {
        "mode": Field("jit", "how a step is compiled for several devices", choices=("jit", "pmap")),
        "fsdp": Field(1, "jit: devices that share one copy of the state", 1, 2**16),
        "tensor": Field(1, "jit: devices that share each layer of a block", 1, 2**16),
        "remat": Field(
            "none",
            "what the backward pass of a block computes again, to save memory: nothing, all but "
            "products with parameters and convolutions (dots), or everything (full)",
            choices=("none", "dots", "full"),
        ),
    },
}

# Sections that name another run, by `run`, and hold its config. A family may have the last two.
OTHER_RUNS = ("first_stage", "reranker", "embedder", "prior")
# Sections to which a text encoder or a data source adds fields of its own.
OPEN_SECTIONS = ("text", "data")


def base() -> Any:
    """Return a config with the default of each field of BASE; a config file sets the others."""
    sections = {name: defaults_of(fields) for name, fields in BASE.items() if name}
    return ConfigDict(copy.deepcopy({**defaults_of(BASE[""]), **sections}))
