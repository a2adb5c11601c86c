"""What does the model cost? Parameters, bytes, FLOPs, memory and times."""

from t2i_jax.evaluation import cost
from t2i_jax.evaluation.column import Column, at, scaled, total
from t2i_jax.evaluation.measure import Measure, Trial


def run(trial: Trial) -> dict:
    """Return the costs, drawing at batches up to `config.evaluate.batch`."""
    return cost.measure_costs(trial.pipe, max_batch=trial.pipe.config.evaluate.batch)


def lines(report: dict, setting: dict) -> list[str]:
    """Return one line each for the weights, for training and for drawing."""
    mib = {name: report[f"{name}_bytes"] / 2**20 for name in ("weights", "train_peak")}
    said = [
        f"cost, on {report['devices']} x {report['device_kind']}:",
        f"  {report['trained_parameters']:,} parameters trained and "
        f"{report['frozen_parameters']:,} frozen; averaged weights of {mib['weights']:,.1f} MiB",
        f"  training: {report['train_flops_per_picture'] / 1e9:,.3g} GFLOP a picture, "
        f"{report['train_pictures_per_second']:,.3g} pictures/s at a batch of "
        f"{report['train_batch']}, {mib['train_peak']:,.0f} MiB a device",
    ]
    if "draw_flops_per_picture" in report:
        said.append(
            f"  drawing: {report['draw_flops_per_picture'] / 1e9:,.3g} GFLOP a picture, "
            f"{report['draw_latency_seconds']:,.3g} s for one, "
            f"{report['draw_pictures_per_second_at_best_batch']:,.3g} pictures/s at a batch of "
            f"{report['draw_best_batch']}"
        )
    return said


COLUMNS = (
    Column(
        title="parameters, M",
        value=scaled(
            1e-6, total(at("cost", "trained_parameters"), at("cost", "frozen_parameters"))
        ),
        format="{:.2f}",
        better=-1,
        meaning="numbers in its weights, frozen ones included",
        order=120,
        headline="Smallest",
    ),
    Column(
        title="GFLOP a picture",
        value=scaled(1e-9, at("cost", "draw_flops_per_picture")),
        format="{:.2f}",
        better=-1,
        meaning="arithmetic to draw one",
        order=130,
    ),
    Column(
        title="ms a picture",
        value=scaled(1000, at("cost", "draw_seconds_per_picture_at_best_batch")),
        format="{:.0f}",
        better=-1,
        meaning="at the best batch",
        order=140,
    ),
    Column(
        title="ms alone",
        value=scaled(1000, at("cost", "draw_latency_seconds")),
        format="{:.0f}",
        better=-1,
        meaning="latency at batch 1",
        order=150,
        headline="Quickest to draw one picture",
    ),
    Column(
        title="images/s training",
        value=at("cost", "train_pictures_per_second"),
        format="{:.0f}",
        better=1,
        meaning="measured",
        order=160,
    ),
)
MEASURE = Measure(
    name="cost",
    order=90,
    run=run,
    lines=lines,
    columns=COLUMNS,
)
