"""FLOPs against closed forms and XLA's own figure."""

import functools

import jax
import jax.numpy as jnp
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from t2i_jax.core.text import TextCondition
from t2i_jax.evaluation.flops import count_flops
from t2i_jax.models.dit import VARIANTS, DiT
from tests.evaluation.flops_by_hand import array, dit_forward, xla_flops


@pytest.mark.parametrize(("variant", "gflop"), [("S/2", 12.1), ("S/4", 2.82), ("B/2", 46.0)])
def test_dit_forward(variant, gflop):
    """Twice the multiply-adds of arXiv 2212.09748, without text.

    Table 1 and figure 8 there: 6.06, 1.41 and 23.01 G.
    """
    fields = VARIANTS[variant]
    net, x, t = DiT(**fields), array(1, 32, 32, 4), array(1)
    text = TextCondition(array(1, 0, 8), array(1, 8), jax.ShapeDtypeStruct((1, 0), bool))
    params = jax.eval_shape(net.init, jax.random.key(0), x, t, text)
    counted = count_flops(net.apply, params, x, t, text)
    cells = (32 // fields["patch"]) ** 2
    by_hand, _ = dit_forward(1, cells, 0, fields["patch"], 4, 8, fields["width"], fields["depth"])
    assert counted == by_hand and counted / 1e9 == pytest.approx(gflop, rel=0.01)
    if variant == "S/2":
        assert counted <= xla_flops(net.apply, params, x, t, text) < 1.05 * counted


def test_a_loop_counts_as_often_as_it_runs_and_what_is_not_needed_does_not():
    x, w = array(4, 8), array(8, 8)
    once = 2 * 4 * 8 * 8

    def scanned(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=10)[0]

    def three_times(x, w):
        return jax.lax.fori_loop(0, 3, lambda i, x: scanned(x, w), x)

    def branches(x, w):
        return jax.lax.cond(x[0, 0] > 0, scanned, jnp.dot, x, w)

    def recomputed(w, x):
        return jax.checkpoint(scanned)(x, w).sum()

    def while_loop(body):
        return lambda x, w: jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: body(x, w), x)

    assert count_flops(scanned, x, w) == 10 * once
    assert xla_flops(scanned, x, w) < 2 * once  # why XLA's figure is not taken
    assert count_flops(three_times, x, w) == 30 * once
    assert count_flops(jax.jit(branches), x, w) == 10 * once
    assert count_flops(lambda x, w: (x @ w @ w, x)[1], x, w) == 0
    assert count_flops(jax.grad(lambda w, x: scanned(x, w).sum()), w, x) == (10 + 2 * 10) * once
    assert count_flops(jax.value_and_grad(recomputed), w, x) == (10 + 10 + 2 * 10) * once
    assert count_flops(while_loop(lambda x, w: x - 1), x, w) == 0
    with pytest.raises(ValueError, match="give it a fixed count"):
        count_flops(while_loop(lambda x, w: x @ w), x, w)
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
    gradient = jax.grad(lambda w, x: (plain(x, w) ** 2).sum())
    once = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert count_flops(plain, array(2, 3, 10, 10), array(5, 3, 3, 3)) == once
    assert count_flops(gradient, array(5, 3, 3, 3), array(2, 3, 10, 10)) == 2 * once
