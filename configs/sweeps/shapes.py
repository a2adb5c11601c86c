r"""Learning rate and guidance of configs/shapes.py, by short trainings.

python main.py sweep --config=configs/shapes.py --sweep=configs/sweeps/shapes.py \
    --workdir=sweeps/shapes --trials=12 --config.train.steps=400 --config.train.score_every=100
"""

METRIC = "score/exact"  # a name in metrics.jsonl, whose last value counts
DIRECTION = "maximize"  # or "minimize"


def suggest(trial):
    """Return the settings of a trial. trial: of Optuna."""
    return {
        "optim.learning_rate": trial.suggest_float("optim.learning_rate", 0.005, 0.05, log=True),
        "sample.guidance": trial.suggest_float("sample.guidance", 1.0, 2.0, step=0.25),
    }
