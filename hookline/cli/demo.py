"""``hookline demo``: draw a balloon data set, then take the same way as with real data."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

__all__ = ["run"]

RECIPE = "balloon/mask_rcnn_demo.py"
NUM_TRAIN, NUM_VAL = 200, 50  # pictures
METRICS = ("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50")


def run(argv: list[str]) -> int:
    """Draw the data, train, evaluate and draw the predictions.

    Args:
        argv: the arguments behind ``hookline demo``; trailing ``key=value`` change the recipe.

    Returns:
        The exit code of the training.
    """
    parser = argparse.ArgumentParser(prog="hookline demo", description="Draw balloons, train on them, evaluate.")
    parser.add_argument("--work-dir", default="output/demo", metavar="DIR", help="where everything goes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the drawings (%(default)s)")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="settings of the recipe to change")
    args = parser.parse_intermixed_args(argv)

    from hookline.cli.train import main as train
    from hookline.data.datasets.synthetic_balloons import generate_balloons

    work_dir = Path(args.work_dir)
    data = work_dir / "datasets"
    print(f"Drawing the data set in {data} ...", flush=True)
    generate_balloons(data, NUM_TRAIN, NUM_VAL, seed=args.seed)
    before = os.environ.get("HOOKLINE_DATASETS")
    os.environ["HOOKLINE_DATASETS"] = str(data)
    try:
        code = train(
            [
                "--config-file",
                RECIPE,
                "--work-dir",
                str(work_dir),
                "--show-dir",
                str(work_dir / "pictures"),
                *args.opts,
            ],
            prog="hookline demo",
        )
    finally:
        if before is None:
            del os.environ["HOOKLINE_DATASETS"]
        else:
            os.environ["HOOKLINE_DATASETS"] = before
    if code == 0:
        print(f"\nOn the {NUM_VAL} validation pictures: {_last_metrics(work_dir / 'metrics.json')}")
        print(f"Predictions to look at: {work_dir / 'pictures'}\nThe log: {work_dir / 'log.txt'}")
    return code


def _last_metrics(file: Path) -> str:
    """Read the last evaluation's results from ``metrics.json``."""
    found: dict[str, float] = {}
    for line in file.read_text("utf-8").splitlines():
        found.update({name: value for name, value in json.loads(line).items() if name in METRICS})
    return ", ".join(f"{name} {value:.1f}" for name, value in found.items()) or "not evaluated"
