"""A learning rate for digits_ddp.py: a grid of four, then a study of twenty trials, and both in one plot.

    pip install 'runctl[optuna,examples]'
    python examples/digits_study.py

After one epoch the best rate lies between the grid's points. (After five it happens to be one of them.) Each job is a
DDP training on two processes; two run at once. Whatever is interrupted, the same command goes on.
"""

import json
import shlex
import subprocess
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
TRAINING = (
    "trainer=ddp trainer.nproc_per_node=2 script=digits_ddp.py args.epochs=1 sweep.metric=val_loss sweep.max_parallel=2"
)
SWEEPS = {
    "grid": "args.learning_rate=0.0001,0.001,0.01,0.1",
    "study": "hydra/sweeper=optuna 'args.learning_rate=tag(log, interval(0.0001, 0.1))' hydra.sweeper.n_trials=20 "
    "hydra.sweeper.n_jobs=2 hydra.sweeper.sampler.seed=7",
}


def swept(name: str) -> list[tuple[float, float]]:
    """Learning rate and held-out loss of each job of a sweep, in the order in which they were tried."""
    words = shlex.split(f"runctl-launch -m {TRAINING} {SWEEPS[name]} run.name={name}")
    subprocess.run(words, cwd=HERE, check=True)
    jobs = json.loads((HERE / "runs" / "sweeps" / name / "sweep.json").read_text())["jobs"]
    return [(float(job["overrides"]["args.learning_rate"]), job["metrics"]["val_loss"]) for job in jobs]


def main() -> None:
    found = {name: swept(name) for name in SWEEPS}
    plt.rcParams["svg.hashsalt"] = "runctl"  # the same plot is the same file
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, mark in (("grid", "s"), ("study", "o")):
        rates, losses = zip(*found[name], strict=True)
        rate, loss = min(found[name], key=lambda one: one[1])
        axes.scatter(rates, losses, marker=mark, label=f"{name}: {loss:.4f} at {rate:.4g}")
        print(f"{name:<6} {len(rates):3} trainings, the lowest held-out loss {loss:.4f} at learning rate {rate:.4g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="held-out loss after one epoch", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(HERE / "digits_study.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
