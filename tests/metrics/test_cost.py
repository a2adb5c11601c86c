"""FLOPs against closed forms and XLA's own figure; memory and times for what can be known of them."""

import dataclasses
import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from t2i_jax.families import family as families
from t2i_jax.metrics import cost
from t2i_jax.metrics.cost import count_flops
from t2i_jax.models.dit import VARIANTS, DiT
from t2i_jax.pipeline import Pipeline, compile_sampler
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.condition import TextCondition


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def xla_flops(f, *args):
    """XLA's figure for the program as it is traced; the compiled one's is the same on CPU, give or take a fusion."""
    return jax.jit(f).lower(*args).cost_analysis().get("flops", 0)


def linear(rows, *widths):
    """FLOPs of a chain of linear layers."""
    return sum(2 * rows * a * b for a, b in itertools.pairwise(widths))


def dit_forward(batch, cells, words, patch, channels, text_width, width, depth):
    """(FLOPs of a DiT, those of them whose inputs are not differentiated)."""
    tokens = cells + words
    block = linear(tokens, width, width) * 4 + linear(tokens, width, 4 * width, width) + 2 * linear(tokens, width, tokens)
    block += linear(1, width, 6 * width)
    start = linear(cells, patch**2 * channels, width) + linear(1, 256, width)
    ends = linear(1, width, width) + linear(1, width, 2 * width) + linear(cells, width, patch**2 * channels)
    text = linear(words, text_width, width) + linear(1, text_width, width)
    return batch * (start + ends + text + depth * block), batch * start


def tiny(smoke, tiny_batch, name, *overrides):
    """A Pipeline of fresh weights, and a batch."""
    overrides = ("text.window=0", "model.depth=1", "model.width=16", "train.batch_size=8", "optim.name=adamw", *overrides)
    config = smoke(name, *overrides)
    batch, frozen = tiny_batch(config)
    if "image_tokenizer" in config:
        codebook = np.zeros((config.image_tokenizer.codes, 3 * config.image_tokenizer.patch**2), np.float32)
        frozen["first_stage"] = {"codebook": codebook}
    family = families.load(config)
    params, extra = jax.eval_shape(family.init, jax.random.key(0), batch)
    tokenizer = tokenizers.train([cost.CAPTION], config.text.vocab_size)
    return Pipeline(config, family, families.Variables(params, extra, frozen), tokenizer, compile_sampler(family)), batch


@pytest.mark.parametrize(("variant", "gflop"), [("S/2", 12.1), ("S/4", 2.82), ("B/2", 46.0)])
def test_dit_forward(variant, gflop):
    """Twice the multiply-adds of arXiv 2212.09748, table 1 and figure 8 (6.06, 1.41 and 23.01 G), without text."""
    fields = VARIANTS[variant]
    net, x, t = DiT(**fields), array(1, 32, 32, 4), array(1)
    text = TextCondition(array(1, 0, 8), array(1, 8), jax.ShapeDtypeStruct((1, 0), bool))
    params = jax.eval_shape(net.init, jax.random.key(0), x, t, text)
    counted = count_flops(net.apply, params, x, t, text)
    by_hand, _ = dit_forward(1, (32 // fields["patch"]) ** 2, 0, fields["patch"], 4, 8, fields["width"], fields["depth"])
    assert counted == by_hand and counted / 1e9 == pytest.approx(gflop, rel=0.01)
    if variant == "S/2":
        assert counted <= xla_flops(net.apply, params, x, t, text) < 1.05 * counted


def test_flow_step(smoke, tiny_batch):
    """Backward is twice forward, but for what goes into the first layers; the optimizer multiplies no matrices."""
    pipe, batch = tiny(smoke, tiny_batch, "shapes_flow", *("model.overlap=false", "model.depth=3", "model.width=256"))
    forward, first = dit_forward(8, 64, 12, 4, 3, 32, 256, 3)
    report = cost.train_flops(pipe, batch)
    assert report["train_step_flops"] == 3 * forward - first
    assert report["train_flops_per_picture"] == report["train_step_flops"] / 8
    create, update = cost._training(pipe, batch)
    args = (jax.eval_shape(create, pipe.variables), pipe.variables.frozen, batch)
    assert report["train_step_flops"] < xla_flops(update, *args) < 1.05 * report["train_step_flops"]


def test_sampling_grows_linearly_in_the_steps(smoke, tiny_batch):
    def drawn(sampler, steps):
        overrides = (f"sample.sampler={sampler}", f"sample.steps={steps}", "model.overlap=false")
        return cost.draw_flops(tiny(smoke, tiny_batch, "shapes_flow", *overrides)[0])["draw_flops_per_picture"]

    call, _ = dit_forward(2, 64, 12, 4, 3, 32, 16, 1)  # 2: with the caption and without
    assert [drawn("euler", steps) for steps in (1, 2, 50)] == [call, 2 * call, 50 * call]
    assert drawn("heun", 10) == 19 * call


def test_autoregressive_step(smoke, tiny_batch):
    pipe, batch = tiny(smoke, tiny_batch, "shapes", "model.width=64", "model.depth=3")
    width, cells, words, codes, patch = 64, 64, 12, 64, 48

    def blocks(queries, keys):
        one = 4 * linear(queries, width, width) + linear(queries, width, 4 * width, width) + 2 * linear(queries, width, keys)
        return 3 * one

    look = linear(codes, patch, 2 * width)
    vectors = look + 2 * linear(codes, 2 * width, width)  # the same for all pictures
    into = linear(cells, 12 * width, width) + linear(words, 32, width)
    forward = vectors + 8 * (into + blocks(cells + words, cells + words) + linear(cells, width, codes))
    nearest = 8 * linear(cells, patch, codes)  # of the image tokenizer
    assert cost.train_flops(pipe, batch)["train_step_flops"] == 3 * forward - look + nearest

    prefill = vectors + 2 * (linear(words, 32, width) + blocks(words, cells + words))
    token = 2 * (linear(1, 12 * width, width) + blocks(1, cells + words) + linear(1, width, codes))
    # The last block's queries and what follows them are not needed for its cache.
    unused = 2 * (2 * linear(words, width, width) + linear(words, width, 4 * width, width))
    unused += 2 * 2 * linear(words, width, cells + words)
    assert cost.draw_flops(pipe)["draw_flops_per_picture"] == prefill - unused + cells * token


def test_loops_count_as_often_as_they_run_and_what_is_not_needed_not_at_all():
    x, w = array(4, 8), array(8, 8)
    once = 2 * 4 * 8 * 8

    def scanned(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=10)[0]

    assert count_flops(scanned, x, w) == 10 * once
    assert xla_flops(scanned, x, w) < 2 * once  # why XLA's figure is not taken
    assert count_flops(lambda x, w: jax.lax.fori_loop(0, 3, lambda i, x: scanned(x, w), x), x, w) == 30 * once
    assert count_flops(jax.jit(lambda x, w: jax.lax.cond(x[0, 0] > 0, scanned, jnp.dot, x, w)), x, w) == 10 * once
    assert count_flops(lambda x, w: (x @ w @ w, x)[1], x, w) == 0
    assert count_flops(jax.grad(lambda w, x: scanned(x, w).sum()), w, x) == (10 + 2 * 10) * once
    assert count_flops(jax.value_and_grad(lambda w, x: jax.checkpoint(scanned)(x, w).sum()), w, x) == (10 + 10 + 2 * 10) * once
    assert count_flops(lambda x: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x - 1, x), x) == 0
    with pytest.raises(ValueError, match="give it a fixed count"):
        count_flops(lambda x, w: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ w, x), x, w)
    with pytest.raises(ValueError, match="shard_map"):
        count_flops(jax.pmap(jnp.dot, devices=jax.devices()[:2]), array(2, 4, 8), array(2, 8, 8))


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    *(SIZES, SIZES, SIZES, st.tuples(SIZES, SIZES), st.sampled_from([(1, 1), (2, 1), (1, 2)])),
)
def test_convolutions_as_xla_counts_them(side, kernel, strides, spread, dilation, padding, groups):
    features, batches = groups

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            *(x, w, strides, padding),
            lhs_dilation=spread,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=features,
            batch_group_count=batches,
        )

    x, w = array(2, *side, 4), array(*kernel, 4 // features, 6)
    assume(all(size > 0 for size in jax.eval_shape(convolve, x, w).shape))
    assert count_flops(convolve, x, w) == xla_flops(convolve, x, w)


def test_convolution_by_hand():
    plain = functools.partial(jax.lax.conv, window_strides=(1, 1), padding="VALID")
    assert count_flops(plain, array(2, 3, 10, 10), array(5, 3, 3, 3)) == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    gradient = jax.grad(lambda w, x: (plain(x, w) ** 2).sum())
    assert count_flops(gradient, array(5, 3, 3, 3), array(2, 3, 10, 10)) == 2 * 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)


def test_peak_bytes_by_hand():
    def compiled(**kwargs):
        return jax.jit(lambda x, y: (x + y, y[0]), **kwargs).lower(array(1000), array(1000)).compile()

    table = 16 * 2  # two outputs are a tuple of pointers, on CPU
    assert 4 * 3001 <= cost.peak_bytes(compiled()) <= 4 * 3001 + table
    assert cost.peak_bytes(compiled()) - cost.peak_bytes(compiled(donate_argnums=0)) == 4000


@pytest.mark.parametrize(("name", "frozen"), [("shapes", 64 * 48), ("shapes_flow", 0)])
def test_weights(smoke, tiny_batch, name, frozen):
    pipe, _ = tiny(smoke, tiny_batch, name)
    variables = pipe.variables._replace(extra={"mean": array(7), "count": jax.ShapeDtypeStruct((), jnp.int32)})
    report = cost.weights(variables)
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
    report = cost.draw_cost(pipe, largest=64)
    assert list(report["draw_seconds"]) == ["1", "2", "4"]  # 8 does not fit
    assert calls == [(1, 0)] * 4 + [(2, 0, 1)] * 4 + [(4, 0, 1, 2, 3)] * 4 + [(8, *range(8))]  # the first is not timed
    best = report["draw_best_batch"]
    assert report["draw_seconds_per_picture_at_best_batch"] == min(s / int(b) for b, s in report["draw_seconds"].items())
    assert report["draw_pictures_per_second_at_best_batch"] == pytest.approx(best / report["draw_seconds"][str(best)])
    assert list(cost.draw_cost(pipe, largest=3)["draw_seconds"]) == ["1", "2"]
    with pytest.raises(ValueError, match="at least 1"):
        cost.draw_cost(pipe, largest=0)


def test_everything_measured(smoke, tiny_batch):
    pipe, batch = tiny(smoke, tiny_batch, "shapes_flow", "model.depth=0", "sample.sampler=euler", "sample.steps=1")
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), pipe.variables)
    pipe = dataclasses.replace(pipe, variables=zeros)
    report = json.loads(json.dumps(cost.measure(pipe, steps=2, largest=1)))
    assert report["devices"] == 8 and report["train_batch"] == 8
    assert report["train_pictures_per_second"] == pytest.approx(8 / report["train_step_seconds"])
    # Each device holds the whole state: weights, their average and two moments; and, for a time, gradients and more.
    assert 4 * report["weights_bytes"] < report["train_peak_bytes"] < 20 * report["weights_bytes"]
    assert set(report["draw_seconds"]) == {"1"} and report["draw_latency_seconds"] == report["draw_seconds"]["1"] > 0
    assert report["train_step_flops"] == cost.train_flops(pipe, batch)["train_step_flops"]  # of other pictures and words
    assert report["draw_flops_per_picture"] == cost.draw_flops(pipe)["draw_flops_per_picture"]
    assert f"{report['trained_parameters']:,} parameters trained and 0 frozen" in "\n".join(cost.lines(report))
    assert all((x == 0).all() for x in jax.tree.leaves(pipe.variables))  # it trained a copy
