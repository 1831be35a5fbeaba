"""``hookline plot-schedule RECIPE [key=value ...]``: draw a recipe's schedules without training."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from PIL.ImageDraw import ImageDraw

__all__ = ["run", "schedule_curves"]

POINTS = 2000  # at most so many of a run are drawn
WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM, ROW = 90, 30, 20, 40, 14
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2"]


def run(argv: list[str]) -> int:
    """Draw the schedules of a recipe.

    Args:
        argv: the words behind ``hookline plot-schedule``.

    Returns:
        The exit code: 0, or 2 if the recipe, an override or a schedule is wrong.
    """
    options = _parser().parse_intermixed_args(argv)
    from hookline.cli.errors import UsageError, describe
    from hookline.cli.settings import load_settings
    from hookline.cli.train import parse_arguments
    from hookline.config import ConfigError

    try:
        cfg = load_settings(parse_arguments(["--config-file", options.recipe, *options.overrides]))
        length, curves = schedule_curves(cfg)
    except (ConfigError, UsageError, ValueError) as error:
        print(f"hookline plot-schedule: {describe(error)}", file=sys.stderr)
        return 2
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    unit = "iterations" if cfg.train.max_iter is not None else "epochs"
    _draw(curves, length, unit).save(out)
    print(f"{out}: {', '.join(curves)} over {length:g} {unit}")
    return 0


def schedule_curves(cfg: DictConfig) -> tuple[float, dict[str, dict[str, list[float]]]]:
    """Compute what the hooks of a run would set.

    Args:
        cfg: the recipe. Its model and optimizer are built, no data set is read.

    Returns:
        The length of the run in iterations (or epochs, where the recipe counts those), and by setting the values over
        the run by the name of the groups.

    Raises:
        UsageError: if the recipe has no schedule.
        ValueError: if a schedule gives values that cannot be; the message names the setting.
    """
    from hookline.cli.errors import UsageError
    from hookline.cli.optimizer import build_optimizer
    from hookline.cli.schedules import SCHEDULES
    from hookline.config import instantiate
    from hookline.engine.schedule import value_at

    scheduled = {key: node for key, node in SCHEDULES.items() if cfg.get(node) is not None}
    if not scheduled:
        raise UsageError(f"the recipe has no schedule to draw; schedules are: {', '.join(SCHEDULES.values())}")
    model = instantiate(cfg.model)
    optimizer = build_optimizer(cfg, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    steps = max(cfg.train.max_iter, 1) if cfg.train.max_iter is not None else POINTS
    curves = {}
    for key, node in scheduled.items():
        scheduler = instantiate(cfg[node])
        count = min(steps, POINTS)
        factors = [value_at(scheduler, index * (steps - 1) // max(count - 1, 1), steps) for index in range(count)]
        curves[key] = {name: [first * f for f in factors] for first, name in _groups(optimizer, key, names).items()}
    return cfg.train.max_iter if cfg.train.max_iter is not None else cfg.train.max_epochs, curves


def _groups(optimizer: Any, key: str, names: dict[int, str]) -> dict[float, str]:
    """Name the groups by their first value; those that share one share a curve."""
    from hookline.engine.hooks.lr_scheduler import first_value
    from hookline.engine.param_groups import some_names

    found: dict[float, list[int]] = {}
    for number, group in enumerate(optimizer.param_groups):
        found.setdefault(first_value(group, key), []).append(number)
    labels = {}
    for value, numbers in found.items():
        parameters = [p for number in numbers for p in optimizer.param_groups[number]["params"]]
        size, which = sum(p.numel() for p in parameters), some_names(names.get(id(p), "?") for p in parameters)
        groups = f"group{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
        labels[value] = f"{groups}: {value:g}, {size:,} parameters ({which})"
    return labels


def _draw(curves: dict[str, dict[str, list[float]]], length: float, unit: str) -> Any:
    """Draw one panel for each setting, one above the other."""
    from PIL import Image, ImageDraw

    heights = [HEIGHT + ROW * len(groups) for groups in curves.values()]
    image = Image.new("RGB", (WIDTH, sum(heights)), "white")
    draw = ImageDraw.Draw(image)
    top = 0
    for (key, groups), height in zip(curves.items(), heights, strict=True):
        _draw_panel(draw, (top, top + height), key, groups, length, unit)
        top += height
    return image


def _draw_panel(
    draw: ImageDraw, rows: tuple[int, int], key: str, groups: dict[str, list[float]], length: float, unit: str
) -> None:
    top, bottom = rows
    left, right, upper, lower = LEFT, WIDTH - RIGHT, top + TOP + ROW * len(groups), bottom - BOTTOM
    highest = max((max(values) for values in groups.values()), default=0.0) or 1.0
    for tick in _ticks(highest):
        y = lower - (lower - upper) * tick / highest
        draw.line([(left, y), (right, y)], fill="#dddddd")
        draw.text((left - 8, y), f"{tick:.4g}", fill="black", anchor="rm")
    for tick in _ticks(length):
        x = left + (right - left) * tick / length
        draw.line([(x, lower), (x, lower + 4)], fill="black")
        draw.text((x, lower + 6), f"{tick:g}", fill="black", anchor="ma")
    draw.text((10, top + 8), key, fill="black")
    draw.text(((left + right) / 2, lower + 22), unit, fill="black", anchor="ma")
    for index, (name, values) in enumerate(groups.items()):
        colour = _colour(index, len(groups))
        step = (right - left) / len(values)
        points = []
        for number, value in enumerate(values):  # a value holds for the whole iteration
            y = lower - (lower - upper) * value / highest
            points += [(left + number * step, y), (left + (number + 1) * step, y)]
        draw.line(points, fill=colour, width=2)
        draw.text((left, top + 8 + ROW * index), name, fill=colour)


def _ticks(end: float) -> list[float]:
    """Divide an axis from 0 to ``end`` at round numbers, into two to five parts."""
    if end <= 0:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(end / 5))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= end / 5 * (1 - 1e-9))
    return [step * number for number in range(int(end / step * (1 + 1e-9)) + 1)]


def _colour(index: int, count: int) -> str:
    """Give a curve's colour; many groups, as layer-wise decay makes, go through the rainbow."""
    return COLOURS[index] if count <= len(COLOURS) else f"hsl({300 * index // (count - 1)}, 80%, 45%)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookline plot-schedule",
        description="Draw the learning rate (momentum, weight decay) of each parameter group over a run, as a PNG.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="path of a recipe, or a packaged recipe's name")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="overrides in Hydra's grammar")
    parser.add_argument("--out", metavar="FILE.png", default="schedule.png", help="the picture (default: %(default)s)")
    return parser
