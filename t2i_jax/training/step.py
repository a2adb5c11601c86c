"""The only train step: it updates a family's players in turn and knows not what they learn."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from t2i_jax.core.family import Context, Family, updates_per_step
from t2i_jax.core.random import derive_keys, example_keys, once_a_step_key
from t2i_jax.core.state import TrainState, update_ema
from t2i_jax.data.poisson import INCLUDED

AUGMENT = 2**31 - 1  # apart from the small numbers that losses fold into the same keys


def with_loss(per_example, metrics: Mapping) -> dict:
    """Return a loss and its metrics by name. Raises ValueError for a metric named "loss"."""
    if "loss" in metrics:
        raise ValueError('a loss returned a metric named "loss", which is the name of the loss')
    return {"loss": per_example, **metrics}


def mean_gradients(loss: Callable, player: str, params, ctx: Context):
    """Differentiate the mean loss of a batch with respect to `params[player]`.

    Returns (gradients, extra, {metric: mean}).
    """

    def mean_loss(player_params):
        per_example, (extra, metrics) = loss({**params, player: player_params}, ctx)
        means = {name: x.mean() for name, x in with_loss(per_example, metrics).items()}
        return means["loss"], (extra, means)

    gradients, (extra, means) = jax.grad(mean_loss, has_aux=True)(params[player])
    return gradients, extra, means


def trained_only(loss: Callable, player: str, stop_frozen: Callable) -> Callable:
    """Return a loss whose gradient stops at the frozen parameters of `player`."""

    def stopped(params, ctx: Context):
        return loss({**params, player: stop_frozen(player, params[player])}, ctx)

    return stopped


def per_example_gradients(transform: Callable) -> Callable:
    """Return a function like `mean_gradients` that applies `transform` before the mean.

    transform: (gradients of one example) -> the same tree. Each example is a batch of its own, so
    the loss must not compare examples, and `extra` must be empty: a ValueError says so. Gradients
    and metrics of rows of weight 0 are zero in the means, which are over all rows: `make_step`
    divides the metrics by the share of counted rows.
    """

    def gradients_of(loss, player, params, ctx: Context):
        if jax.tree.leaves(ctx.extra):
            raise ValueError(
                "gradients cannot be transformed per example where training changes a state over "
                "the batch (batch statistics, codebook averages)"
            )

        def of_one(batch, keys, weight):
            one = ctx._replace(
                batch=jax.tree.map(lambda x: x[None], batch), keys=keys[None], weight=jnp.ones(1)
            )
            gradients, _, means = mean_gradients(loss, player, params, one)
            return jax.tree.map(lambda x: x * weight, (transform(gradients), means))

        gradients, means = jax.vmap(of_one)(ctx.batch, ctx.keys, ctx.weight)
        gradients, means = jax.tree.map(lambda x: x.mean(0), (gradients, means))
        return gradients, ctx.extra, means

    return gradients_of


def accumulated(gradients_of: Callable, parts: int) -> Callable:
    """Return a function like `gradients_of` that computes `parts` equal parts one after another.

    Gradients are summed in the loop's carry, so memory holds one sum whatever the number of parts.
    """
    if parts == 1:
        return gradients_of

    def over_parts(loss, player, params, ctx: Context):
        def one_part(extra, part):
            batch, keys, weight = part
            ctx_part = ctx._replace(extra=extra, batch=batch, keys=keys, weight=weight)
            gradients, extra, means = gradients_of(loss, player, params, ctx_part)
            return extra, (gradients, means)

        def add(carry, part):
            extra, sums = carry
            extra, found = one_part(extra, part)
            return (extra, jax.tree.map(jnp.add, sums, found)), None

        split = in_parts((ctx.batch, ctx.keys, ctx.weight), parts)
        first = jax.tree.map(lambda x: x[0], split)
        _, shapes = jax.eval_shape(one_part, ctx.extra, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (extra, sums), _ = jax.lax.scan(add, (ctx.extra, zeros), split)
        gradients, means = jax.tree.map(lambda x: x / parts, sums)
        return gradients, extra, means

    return over_parts


def in_parts(tree, parts: int):
    """Reshape [B, ...] to [parts, B / parts, ...].

    Part j has the examples j, j + parts, ...: those of a device stay on it.
    """
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), tree
    )


def batch_size_of(batch) -> int:
    """Return the number of examples of a batch: the first dimension of its arrays."""
    return len(jax.tree.leaves(batch)[0])


def split_weight(batch: Mapping) -> tuple[dict, jax.Array]:
    """Return (the batch without the column of Poisson sampling, the weight [B] of its rows)."""
    weight = batch[INCLUDED] if INCLUDED in batch else jnp.ones(batch_size_of(batch), jnp.float32)
    return {name: column for name, column in batch.items() if name != INCLUDED}, weight


def over_devices(tree, axis_name: str | None):
    """Return the mean of `tree` over the devices of `axis_name`; None: it is global already."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def make_step(
    family: Family,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    ema_decay: float,
    accumulate: int = 1,
    axis_name: str | None = None,
    augment: Callable | None = None,
    per_example: Callable | None = None,
    after_mean: Callable | None = None,
    stop_frozen: Callable | None = None,
) -> Callable:
    """Return step(state, frozen, batch) -> (state, metrics).

    Each player in turn is updated and seen by the next. A player with several updates a step
    (`Family.updates`) makes each on another part of the batch; its metrics are the means over them.

    augment: (batch, keys [B]) -> batch, of data/augmentation.py.
    per_example: (gradients of one example) -> the same tree, applied before the mean over examples
        (clipping). It costs a gradient for each example.
    after_mean: (gradients, key) -> gradients, applied once to the mean over all parts and devices
        (noise). The key differs for each step, player and update.
    stop_frozen: (player, params) -> params, equal, without gradients where nothing is trained.
    axis_name: of pmap; gradients and metrics are averaged over its devices. Without, the batch is
        the global one.
    """
    gradients_of = mean_gradients if per_example is None else per_example_gradients(per_example)
    gradients_of, parts = accumulated(gradients_of, accumulate), updates_per_step(family)

    def step(state: TrainState, frozen, batch):
        params, opt_state = dict(state.params), dict(state.opt_state)
        extra, metrics = state.extra, {}
        keys = example_keys(state.rng, state.step, batch_size_of(batch), axis_name)
        step_key = once_a_step_key(state.rng, state.step)
        if augment is not None:
            batch = augment(batch, derive_keys(keys, AUGMENT))
        batch, weight = split_weight(batch)
        examples = in_parts((batch, keys, weight), parts)

        for number, (player, loss) in enumerate(family.losses.items()):
            if stop_frozen is not None:
                loss = trained_only(loss, player, stop_frozen)

            def update(current, part, player=player, loss=loss, number=number):
                own, own_opt_state, extra = current
                (batch, keys, weight), turn = part
                ctx = Context(
                    extra, frozen, state.ema, state.step, batch, keys, True, weight, step_key
                )
                gradients, extra, means = gradients_of(loss, player, {**params, player: own}, ctx)
                gradients, means = over_devices((gradients, means), axis_name)
                if per_example is not None:  # rows without an example are zero in these means
                    counted = jnp.maximum(over_devices(weight.mean(), axis_name), 1e-9)
                    means = jax.tree.map(lambda x: x / counted, means)
                if after_mean is not None:
                    key = jax.random.fold_in(jax.random.fold_in(step_key, number), turn)
                    gradients = after_mean(gradients, key)
                means["grad_norm"] = optax.global_norm(gradients)
                updates, own_opt_state = optimizers[player].update(gradients, own_opt_state, own)
                own = family.constrain(player, optax.apply_updates(own, updates))
                return (own, own_opt_state, extra), means

            times = family.updates.get(player, 1)
            current = (params[player], opt_state[player], extra)
            if times == 1:
                part = (jax.tree.map(lambda x: x[0], examples), 0)
                current, means = update(current, part)
            else:
                turns = (jax.tree.map(lambda x, n=times: x[:n], examples), jnp.arange(times))
                current, means = jax.lax.scan(update, current, turns)
                means = jax.tree.map(lambda x: x.mean(0), means)
            params[player], opt_state[player], extra = current
            prefix = f"{player}/" if len(family.losses) > 1 else ""
            metrics.update({prefix + name: value for name, value in means.items()})
        new = {"params": params, "extra": extra}
        ema = update_ema(state.ema, new, state.step, ema_decay, family.carried)
        return TrainState(state.step + 1, params, opt_state, extra, ema, state.rng), metrics

    return step


def make_measure(family: Family) -> Callable:
    """Return measure(ema, frozen, batch, rng, weight [B]) -> {metric: weighted sum}.

    It computes every player's loss and updates nothing. `weight` is 0 for the examples that only
    pad the last batch.
    """

    def measure(ema, frozen, batch, rng, weight):
        sums, step = {}, jnp.int32(0)
        keys = example_keys(rng, 0, batch_size_of(batch))
        step_key = once_a_step_key(rng, 0)
        for player, loss in family.losses.items():
            ctx = Context(ema["extra"], frozen, ema, step, batch, keys, False, weight, step_key)
            per_example, (_, metrics) = loss(ema["params"], ctx)
            prefix = f"{player}/" if len(family.losses) > 1 else ""
            for name, value in with_loss(per_example, metrics).items():
                sums[prefix + name] = (value * weight).sum()
        return sums

    return measure
