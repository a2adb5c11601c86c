"""Costs of training and drawing: FLOPs against closed forms, memory and times."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.core.family import Variables
from t2i_jax.evaluation import cost
from t2i_jax.evaluation.measures.cost import lines
from t2i_jax.families.load import load_family
from t2i_jax.pipeline import Pipeline
from t2i_jax.text import tokenizer as tokenizers
from tests.evaluation.flops_by_hand import array, dit_forward, linear, xla_flops


def tiny(smoke, tiny_batch, name, *overrides):
    """A Pipeline of fresh weights, and a batch."""
    overrides = (
        "text.window=0",
        "model.depth=1",
        "model.width=16",
        "train.batch_size=8",
        "optim.name=adamw",
        *overrides,
    )
    config = smoke(name, *overrides)
    batch, frozen = tiny_batch(config)
    if "image_tokenizer" in config:
        shape = (config.image_tokenizer.codes, 3 * config.image_tokenizer.patch**2)
        frozen["first_stage"] = {"codebook": np.zeros(shape, np.float32)}
    family = load_family(config)
    params, extra = jax.eval_shape(family.init, jax.random.key(0), batch)
    tokenizer = tokenizers.train([cost.CAPTION], config.text.vocab_size)
    variables = Variables(params, extra, frozen)
    return Pipeline(config, family, variables, tokenizer), batch


def test_diffusion_step(smoke, tiny_batch):
    """Backward is twice forward, except for the inputs of the first layers.

    The optimizer multiplies no matrices.
    """
    pipe, batch = tiny(
        smoke,
        tiny_batch,
        "shapes_diffusion",
        *("model.overlap=false", "model.depth=3", "model.width=256"),
    )
    forward, first = dit_forward(8, 64, 12, 4, 3, 32, 256, 3)
    report = cost.train_flops(pipe, batch)
    assert report["train_step_flops"] == 3 * forward - first
    assert report["train_flops_per_picture"] == report["train_step_flops"] / 8
    create, update = cost.make_training(pipe, batch)
    args = (jax.eval_shape(create, pipe.variables), pipe.variables.frozen, batch)
    assert report["train_step_flops"] < xla_flops(update, *args) < 1.05 * report["train_step_flops"]


def test_sampling_grows_linearly_in_the_steps(smoke, tiny_batch):
    def drawn(sampler, steps):
        overrides = (f"sample.sampler={sampler}", f"sample.steps={steps}", "model.overlap=false")
        pipe, _ = tiny(smoke, tiny_batch, "shapes_diffusion", *overrides)
        return cost.draw_flops(pipe)["draw_flops_per_picture"]

    call, _ = dit_forward(2, 64, 12, 4, 3, 32, 16, 1)  # 2: with the caption and without
    assert [drawn("euler", steps) for steps in (1, 2, 50)] == [call, 2 * call, 50 * call]
    assert drawn("heun", 10) == 19 * call


def test_autoregressive_step(smoke, tiny_batch):
    pipe, batch = tiny(smoke, tiny_batch, "shapes", "model.width=64", "model.depth=3")
    width, cells, words, codes, patch = 64, 64, 12, 64, 48

    def blocks(queries, keys):
        one = (
            4 * linear(queries, width, width)
            + linear(queries, width, 4 * width, width)
            + 2 * linear(queries, width, keys)
        )
        return 3 * one

    look = linear(codes, patch, 2 * width)
    vectors = look + 2 * linear(codes, 2 * width, width)  # the same for all pictures
    into = linear(cells, 12 * width, width) + linear(words, 32, width)
    forward = vectors + 8 * (
        into + blocks(cells + words, cells + words) + linear(cells, width, codes)
    )
    nearest = 8 * linear(cells, patch, codes)  # of the image tokenizer
    assert cost.train_flops(pipe, batch)["train_step_flops"] == 3 * forward - look + nearest

    prefill = vectors + 2 * (linear(words, 32, width) + blocks(words, cells + words))
    token = 2 * (linear(1, 12 * width, width) + blocks(1, cells + words) + linear(1, width, codes))
    # The last block's queries and what follows them are not needed for its cache.
    unused = 2 * (2 * linear(words, width, width) + linear(words, width, 4 * width, width))
    unused += 2 * 2 * linear(words, width, cells + words)
    assert cost.draw_flops(pipe)["draw_flops_per_picture"] == prefill - unused + cells * token


@pytest.mark.parametrize(("name", "frozen"), [("shapes", 64 * 48), ("shapes_diffusion", 0)])
def test_weights(smoke, tiny_batch, name, frozen):
    pipe, _ = tiny(smoke, tiny_batch, name)
    variables = pipe.variables._replace(
        extra={"mean": array(7), "count": jax.ShapeDtypeStruct((), jnp.int32)}
    )
    report = cost.weight_sizes(variables)
    trained = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(variables.params))
    null_text = 12 * 4 + 12  # int32 tokens and a mask: frozen, and no parameters
    expected = (trained, frozen, 4 * (trained + 8), 4 * frozen + null_text)
    assert tuple(report.values()) == expected


@pytest.fixture(scope="module")
def counted_pipe():
    """A Pipeline whose drawing takes no time; it notes what it was asked for."""
    calls = []

    class Pipe:
        def draw_rows(self, captions, index, seed):
            calls.append((len(captions), *index))
            if len(captions) > 4:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    return Pipe(), calls


def test_batches_that_are_tried(counted_pipe):
    pipe, calls = counted_pipe
    report = cost.draw_cost(pipe, max_batch=64)
    assert list(report["draw_seconds"]) == ["1", "2", "4"]  # 8 does not fit
    # Four times each: the first is not timed.
    fitting = [(1, 0)] * 4 + [(2, 0, 1)] * 4 + [(4, 0, 1, 2, 3)] * 4
    assert calls == [*fitting, (8, *range(8))]
    best = report["draw_best_batch"]
    assert report["draw_seconds_per_picture_at_best_batch"] == min(
        s / int(b) for b, s in report["draw_seconds"].items()
    )
    assert report["draw_pictures_per_second_at_best_batch"] == pytest.approx(
        best / report["draw_seconds"][str(best)]
    )
    assert list(cost.draw_cost(pipe, max_batch=3)["draw_seconds"]) == ["1", "2"]
    with pytest.raises(ValueError, match="at least 1"):
        cost.draw_cost(pipe, max_batch=0)


def test_everything_measured(smoke, tiny_batch):
    pipe, batch = tiny(
        smoke,
        tiny_batch,
        "shapes_diffusion",
        "model.depth=0",
        "sample.sampler=euler",
        "sample.steps=1",
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), pipe.variables)
    pipe = dataclasses.replace(pipe, variables=zeros)
    report = json.loads(json.dumps(cost.measure_costs(pipe, steps=2, max_batch=1)))
    assert report["devices"] == 8 and report["train_batch"] == 8
    assert report["train_pictures_per_second"] == pytest.approx(8 / report["train_step_seconds"])
    # Each device holds the whole state: weights, their average and two moments; and, for a time,
    # gradients and more.
    assert 4 * report["weights_bytes"] < report["train_peak_bytes"] < 20 * report["weights_bytes"]
    assert set(report["draw_seconds"]) == {"1"}
    assert report["draw_latency_seconds"] == report["draw_seconds"]["1"] > 0
    # `batch` has other pictures and words.
    assert report["train_step_flops"] == cost.train_flops(pipe, batch)["train_step_flops"]
    assert report["draw_flops_per_picture"] == cost.draw_flops(pipe)["draw_flops_per_picture"]
    said = "\n".join(lines(report, {}))
    assert f"{report['trained_parameters']:,} parameters trained and 0 frozen" in said
    assert all((x == 0).all() for x in jax.tree.leaves(pipe.variables))  # it trained a copy
