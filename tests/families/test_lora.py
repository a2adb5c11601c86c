"""LoRA: merged equals unmerged, only the adapter is trained, and what does not fit is named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from t2i_jax.core.family import Context, Family
from t2i_jax.families.lora import adapted, init_adapter, merge

R = np.random.default_rng(0)


def random(*shape):
    return jnp.asarray(R.normal(size=shape), jnp.float32)


def test_a_merged_kernel_computes_what_both_paths_do():
    """Of a linear layer, and of a convolution: one to `rank` channels, then 1 x 1."""
    x, scale = random(2, 6, 6, 5), 0.7
    linear = {"kernel": random(5, 7)}
    factors = {"kernel": {"down": random(5, 3), "up": random(3, 7)}}
    merged = merge(linear, factors, scale)
    beside = (
        x @ linear["kernel"] + scale * (x @ factors["kernel"]["down"]) @ factors["kernel"]["up"]
    )
    np.testing.assert_allclose(x @ merged["kernel"], beside, atol=1e-5)

    def conv(x, kernel):
        return nn.Conv(kernel.shape[-1], kernel.shape[:2], use_bias=False).apply(
            {"params": {"kernel": kernel}}, x
        )

    kernel, down, up = random(3, 3, 5, 7), random(3, 3, 5, 2), random(2, 7)
    merged = merge({"kernel": kernel}, {"kernel": {"down": down, "up": up}}, scale)["kernel"]
    beside = conv(x, kernel) + scale * conv(conv(x, down), up[None, None])
    np.testing.assert_allclose(conv(x, merged), beside, atol=1e-4 * jnp.abs(beside).max())
    assert jnp.abs(merged - kernel).max() > 0.1


def test_several_adapters_add_up_and_other_arrays_stay():
    params = {"a": {"kernel": random(4, 6), "bias": random(6)}, "empty": {}, "b": random(3, 3)}
    one, other = ({"a": {"kernel": {"down": random(4, 2), "up": random(2, 6)}}} for _ in range(2))
    both = merge(merge(params, one, 0.8), other, -0.5)
    products = [f["a"]["kernel"]["down"] @ f["a"]["kernel"]["up"] for f in (one, other)]
    expected = params["a"]["kernel"] + 0.8 * products[0] - 0.5 * products[1]
    np.testing.assert_allclose(both["a"]["kernel"], expected, rtol=1e-5, atol=1e-6)
    assert both["a"]["bias"] is params["a"]["bias"] and both["b"] is params["b"]
    assert both["empty"] == {}


def test_kernels_are_chosen_by_path():
    shapes = {
        "model": {
            "text": {},
            "net": {
                "attention": {"kernel": random(4, 6), "bias": random(6)},
                "kernel": random(4, 5),
            },
        },
        "critic": {"scale": random(3)},
    }
    adapter = init_adapter(jax.random.key(0), shapes, 2, "attention/")
    assert {"/".join(map(str, p)): x.shape for p, x in flat(adapter)} == {
        "model/net/attention/kernel/down": (4, 2),
        "model/net/attention/kernel/up": (2, 6),
    }
    assert adapter["critic"] == {}
    merged = merge(shapes, adapter, 1.0)
    jax.tree.map(np.testing.assert_array_equal, merged, shapes)  # a fresh one changes nothing
    wide = init_adapter(jax.random.key(0), {"model": {"kernel": random(400, 3)}}, 100, "kernel")
    down = wide["model"]["kernel"]["down"]
    assert abs(down.std() - 0.05) < 0.002, "products with `down` have the size of their input"
    with pytest.raises(ValueError, match=r"matches no kernel; some paths: .*model/net/kernel"):
        init_adapter(jax.random.key(0), shapes, 2, "bias")
    with pytest.raises(ValueError, match=r"lora.paths = '\(' is not a regular expression"):
        init_adapter(jax.random.key(0), shapes, 2, "(")


def flat(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [([entry.key for entry in path], x) for path, x in found]


def test_an_adapter_of_another_model_is_refused_by_name():
    adapter = {"net": {"query": {"kernel": {"down": random(4, 2), "up": random(2, 6)}}}}
    for params, message in (
        ({"net": {"key": {"kernel": random(4, 6)}}}, "net/query/kernel is no such kernel here"),
        (
            {"net": {"query": {"kernel": random(4, 5)}}},
            r"net/query/kernel is \[4, 5\] here, and \[4, 6\] in the adapter",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            merge(params, adapter, 1.0)


def test_the_losses_of_a_family_train_its_adapter_alone():
    """Two players of one matrix each; the gradient follows from that of the whole matrix."""

    def loss(params, ctx: Context):
        x = ctx.batch["x"]
        y = x @ params["one"]["kernel"] @ params["two"]["kernel"]
        return jnp.sum(y**2, axis=1), (
            ctx.extra,
            {"ema": ctx.ema["params"]["one"]["kernel"][:1, 0]},
        )

    base = {"one": {"kernel": random(4, 5)}, "two": {"kernel": random(5, 3)}}
    family = Family(
        init=lambda rng, batch: (base, {"count": jnp.zeros(())}),
        losses={"one": loss, "two": loss},
        abilities={},
        settings={},
    )
    lora = ConfigDict({"lora": {"rank": 2, "scale": 0.5, "paths": "one"}})
    trained = adapted(family, lora)
    adapter, extra = trained.init(jax.random.key(0), {})
    assert extra.keys() == {"count"} and adapter["two"] == {}
    adapter["one"]["kernel"]["up"] = random(2, 5)
    ema = {"params": adapter, "extra": extra}
    x = random(6, 4)
    ctx = Context(
        extra, {"base": base}, ema, jnp.int32(0), {"x": x}, jax.random.split(jax.random.key(0), 6)
    )
    down, up = adapter["one"]["kernel"]["down"], adapter["one"]["kernel"]["up"]
    whole = base["one"]["kernel"] + 0.5 * down @ up

    def mean(adapter):
        return trained.losses["one"](adapter, ctx)[0].mean()

    gradient = jax.grad(mean)(adapter)
    assert jax.tree.structure(gradient) == jax.tree.structure(adapter)
    of_whole = jax.grad(lambda w: jnp.sum((x @ w @ base["two"]["kernel"]) ** 2) / 6)(whole)
    np.testing.assert_allclose(
        gradient["one"]["kernel"]["down"], 0.5 * of_whole @ up.T, rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
        gradient["one"]["kernel"]["up"], 0.5 * down.T @ of_whole, rtol=1e-4, atol=1e-4
    )
    _, (_, metrics) = trained.losses["one"](adapter, ctx)
    np.testing.assert_allclose(metrics["ema"][0], whole[0, 0], rtol=1e-5)


def test_a_magnitude_is_the_length_of_what_goes_to_each_output():
    """DoRA: at weight 1 the columns have these lengths and the direction of the sum; at 0, none."""
    kernel, down, up = random(3, 3, 4, 5), random(3, 3, 4, 2), random(2, 5)
    factors = {"down": down, "up": up, "magnitude": np.arange(1.0, 6.0)}
    found = np.asarray(merge({"a": kernel}, {"a": factors}, 1.0)["a"])
    np.testing.assert_allclose(np.sqrt((found**2).sum((0, 1, 2))), np.arange(1, 6), rtol=1e-5)
    ratio = found / (kernel + down @ up)
    np.testing.assert_allclose(ratio, ratio[:1, :1, :1] + 0 * ratio, rtol=1e-3)
    same = merge({"a": kernel}, {"a": factors}, 0.0)["a"]
    np.testing.assert_allclose(same, kernel, rtol=1e-6)
