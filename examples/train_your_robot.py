# SPDX-License-Identifier: Apache-2.0
"""Train a network for a URDF of your own, and plot its learning curve.

    python train_your_robot.py my_robot.urdf tool0 --minutes 10

A run that is stopped goes on with the same command. The Panda's URDF stands in for yours.
"""

import argparse
from pathlib import Path

import meanflow_ik_core as mik
from meanflow_ik_core.commands.options import read_settings
from meanflow_ik_core.training.config import load_train_config

try:
    from matplotlib.figure import Figure
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from meanflow_ik_core.training.trainer import train
except ImportError as error:
    raise SystemExit(f"{error}: pip install '.[demo,train]'") from None

PANDA = Path(mik.__file__).parent / "robots" / "panda.urdf"

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("urdf", nargs="?", default=PANDA, type=Path)
parser.add_argument("tip", nargs="?", default="panda_link8")
parser.add_argument("--minutes", default=10.0, type=float)
parser.add_argument("--out", default="runs/mine", type=Path)
parser.add_argument(
    "--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings in place of the recipe's"
)
options = parser.parse_args()

robot = mik.load_robot(options.urdf, tips=[options.tip])
settings = {"max_seconds": 60 * options.minutes} | read_settings(options.set)
config = load_train_config("panda", **settings)
result = train(robot, config, options.out)
print(f"{result.samples} samples in {result.seconds:.0f} s: {result.checkpoint}")

events = EventAccumulator(str(options.out))
events.Reload()
figure = Figure(figsize=(10, 3.5), layout="constrained")
for axes, (error, unit) in zip(
    figure.subplots(1, 2), (("position", "m"), ("orientation", "rad")), strict=True
):
    curve = events.Scalars(f"validation/{error}_error_median")
    axes.loglog([point.step for point in curve], [point.value for point in curve], marker=".")
    axes.set(xlabel="steps", ylabel=f"[{unit}]", title=f"median {error} error of raw samples")
figure.savefig(options.out / "learning_curve.png", dpi=80)

solver = mik.load_solver(robot, checkpoint=result.checkpoint)
target = robot.forward(0.5 * (robot.lower + robot.upper))[None]
print(f"{solver.sampler}: {solver.solve(target, seed=0).explain()}")
