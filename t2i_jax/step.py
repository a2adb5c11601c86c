"""The only train step: it folds over a family's players. It knows nothing of what they learn."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from t2i_jax.families.family import Context, Family, fold_in_each, parts_of_batch
from t2i_jax.state import TrainState, update_ema

AUGMENT = 2**31 - 1  # apart from the small numbers that losses fold into the same keys


def mean_gradients(loss: Callable, player: str, params, ctx: Context):
    """Gradient of the mean loss with respect to `params[player]`; gives (gradients, extra, {metric: mean})."""

    def mean_loss(player_params):
        per_example, (extra, metrics) = loss({**params, player: player_params}, ctx)
        means = {name: value.mean() for name, value in {"loss": per_example, **metrics}.items()}
        return means["loss"], (extra, means)

    gradients, (extra, means) = jax.grad(mean_loss, has_aux=True)(params[player])
    return gradients, extra, means


def accumulated(gradients: Callable, parts: int) -> Callable:
    """`gradients` computed over `parts` equal parts of the batch, one after another, and averaged."""
    if parts == 1:
        return gradients

    def over_parts(loss, player, params, ctx):
        def part(extra, part_of):
            batch, keys = part_of
            result = gradients(loss, player, params, ctx._replace(extra=extra, batch=batch, keys=keys))
            return result[1], (result[0], result[2])

        extra, stacked = jax.lax.scan(part, ctx.extra, in_parts((ctx.batch, ctx.keys), parts))
        grads, metrics = jax.tree.map(lambda x: x.mean(0), stacked)
        return grads, extra, metrics

    return over_parts


def in_parts(tree, parts: int):
    """[B, ...] -> [parts, B / parts, ...]; part j has the examples j, j + parts, ...: those of a device stay on it."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), tree)


def count_of(batch) -> int:
    """How many there are in a batch: every array of it has a row for each."""
    return len(jax.tree.leaves(batch)[0])


def example_keys(rng, step, count: int, axis_name: str | None = None):
    """One key an example [count], a function of the run's key, the step and the example's place in the global batch."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    step_key = jax.random.fold_in(rng, step)
    return jax.vmap(lambda place: jax.random.fold_in(step_key, place))(first + jnp.arange(count))


def make_step(
    family: Family,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    ema_decay: float,
    accumulate: int = 1,
    axis_name: str | None = None,
    augment: Callable | None = None,
    gradients: Callable = mean_gradients,
) -> Callable:
    """step(state, frozen, batch) -> (state, metrics). Each player in turn is updated and seen by the next.

    A player with several updates a step (`Family.updates`) makes each on another part of the batch; metrics are their means.
    augment: (batch, keys [B]) -> batch, of augmentation.py.
    Under `axis_name` (pmap) gradients and metrics are averaged over devices; without, the batch is the global one.
    """
    gradients, parts = accumulated(gradients, accumulate), parts_of_batch(family)

    def step(state: TrainState, frozen, batch):
        params, opt_state, extra, metrics = dict(state.params), dict(state.opt_state), state.extra, {}
        keys = example_keys(state.rng, state.step, count_of(batch), axis_name)
        if augment is not None:
            batch = augment(batch, fold_in_each(keys, AUGMENT))
        examples = in_parts((batch, keys), parts)

        for player, loss in family.losses.items():

            def update(current, part, player=player, loss=loss):
                own, own_opt_state, extra = current
                ctx = Context(extra, frozen, state.ema, state.step, *part)
                grads, extra, means = gradients(loss, player, {**params, player: own}, ctx)
                if axis_name is not None:
                    grads, means = jax.lax.pmean((grads, means), axis_name)
                means["grad_norm"] = optax.global_norm(grads)
                updates, own_opt_state = optimizers[player].update(grads, own_opt_state, own)
                return (optax.apply_updates(own, updates), own_opt_state, extra), means

            current, times = (params[player], opt_state[player], extra), family.updates.get(player, 1)
            if times == 1:
                current, means = update(current, jax.tree.map(lambda x: x[0], examples))
            else:
                current, means = jax.lax.scan(update, current, jax.tree.map(lambda x, n=times: x[:n], examples))
                means = jax.tree.map(lambda x: x.mean(0), means)
            params[player], opt_state[player], extra = current
            prefix = f"{player}/" if len(family.losses) > 1 else ""
            metrics.update({prefix + name: value for name, value in means.items()})
        ema = update_ema(state.ema, {"params": params, "extra": extra}, state.step, ema_decay)
        return TrainState(state.step + 1, params, opt_state, extra, ema, state.rng), metrics

    return step


def make_measure(family: Family) -> Callable:
    """measure(ema, frozen, batch, rng, weight [B]) -> {metric: weighted sum}: every player's losses, nothing updated.

    `weight` is 0 for the examples that only fill up the last batch.
    """

    def measure(ema, frozen, batch, rng, weight):
        sums = {}
        keys = example_keys(rng, 0, count_of(batch))
        for player, loss in family.losses.items():
            ctx = Context(ema["extra"], frozen, ema, jnp.int32(0), batch, keys, train=False)
            per_example, (_, metrics) = loss(ema["params"], ctx)
            prefix = f"{player}/" if len(family.losses) > 1 else ""
            for name, value in {"loss": per_example, **metrics}.items():
                sums[prefix + name] = (value * weight).sum()
        return sums

    return measure
