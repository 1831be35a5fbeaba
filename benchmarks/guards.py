"""What guards and averages cost in a step of a small model: the tiny Mask R-CNN on two drawn pictures, on one thread.

Each row is a trainer of its own with the same model. All take turns of a few steps, in another order in each round, and
each turn is compared with one of the trainer without guards right before or after it: a slow moment of the machine hits
both. Beside the clock's times stand those of the processor alone, and what the processor spent inside of the hooks: on
a machine with other work on it they are the ones to compare. Garbage is collected, and memory looked at, once in 1,000
steps; what one time takes is measured by itself and counted in with its thousandth part.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import print_table
from hookline.cli.recipes import find_recipe
from hookline.config import LazyConfig, instantiate
from hookline.data.datasets.synthetic_balloons import generate_balloons
from hookline.engine import HookBase, SimpleTrainer, hooks

TURN = 4  # steps
ROUNDS = 10
PERIOD = 1000  # steps between two collections, and between two looks at the memory
GOAL = 5.0  # percent

__all__ = ["main"]

Hooks = list[HookBase]


class TimedTrainer(SimpleTrainer):
    """Adds up the processor's time inside of its hooks."""

    hooks_s = 0.0

    def _compile(self) -> None:
        super()._compile()
        for moment in ("before_step", "after_backward", "after_step"):
            self._calls[moment] = [partial(self._time, call) for call in self._calls[moment]]

    def _time(self, call: Callable[[], None]) -> None:
        start = time.thread_time()
        call()
        self.hooks_s += time.thread_time() - start


class Clock(HookBase):
    """Times the steps of a turn, from the first moment to the last; registered at both ends."""

    def __init__(self) -> None:
        self.start = (0.0, 0.0)
        self.seconds = (0.0, 0.0)

    def begin(self) -> HookBase:
        """Return the first hook."""
        return hooks.CallbackHook(before_step=self._note_start)

    def _note_start(self, trainer: Any) -> None:
        if trainer.iter == trainer.start_iter:
            self.start = _clocks()

    def after_step(self) -> None:
        """Take the time after the last step of the turn."""
        if self.trainer.iter + 1 == self.trainer.max_iter:
            now = _clocks()
            self.seconds = (now[0] - self.start[0], now[1] - self.start[1])


def main() -> None:
    """Print the table."""
    threads, level = torch.get_num_threads(), logging.getLogger("hookline").level
    torch.set_num_threads(1)
    logging.getLogger("hookline").setLevel(logging.ERROR)
    try:
        model, batch = small_step()
        _print(*measure_variants(model, batch))
    finally:
        torch.set_num_threads(threads)
        logging.getLogger("hookline").setLevel(level)


def small_step() -> tuple[torch.nn.Module, Any]:
    """Return the model and a batch of two drawn pictures, 96 pixels on the short side."""
    cfg = LazyConfig.load(str(find_recipe("balloon/mask_rcnn_tiny.py")))
    before = os.environ.get("HOOKLINE_DATASETS")
    with tempfile.TemporaryDirectory() as folder:
        generate_balloons(Path(folder), num_train=4, num_val=1)
        os.environ["HOOKLINE_DATASETS"] = folder
        try:
            cfg.dataloader.train.total_batch_size = 2
            cfg.dataloader.train.num_workers = 0
            cfg.dataloader.train.mapper.augmentations[0].short_edge_length = [96, 96]
            batch = next(iter(instantiate(cfg.dataloader.train)))
        finally:
            if before is None:
                del os.environ["HOOKLINE_DATASETS"]
            else:
                os.environ["HOOKLINE_DATASETS"] = before
    torch.manual_seed(0)
    return instantiate(cfg.model), batch


def variants() -> dict[str, Callable[[], Hooks]]:
    """Give the hooks of every row."""

    def armed() -> Hooks:
        return [hooks.NonFiniteGuard(every_step=False, anomaly=True)]

    def garbage() -> Hooks:
        return [hooks.GarbageCollection(PERIOD)]

    def memory() -> Hooks:
        return [hooks.MemoryGuard(0.25, PERIOD)]

    def watchdog() -> Hooks:
        return [hooks.Watchdog(60.0)]

    def ema() -> Hooks:
        return [hooks.EMAHook(half_life=1000)]

    def skip() -> Hooks:
        return [hooks.NonFiniteGuard(anomaly=True)]

    return {
        "losses checked when gathered (always)": list,
        "restore, anomaly armed": armed,
        "garbage collection": garbage,
        "memory guard": memory,
        "watchdog": watchdog,
        "EMA": ema,
        "EMA and all guards": lambda: [*watchdog(), *armed(), *garbage(), *memory(), *ema()],
        "skip: each step checked": skip,
        "EMA and all guards, with skip": lambda: [*watchdog(), *skip(), *garbage(), *memory(), *ema()],
    }


def seldom_s() -> dict[str, float]:
    """Return the seconds of one collection and of one look at the memory, as medians."""
    gc.collect()
    gc.freeze()
    guard = hooks.MemoryGuard()
    guard.trainer = type("Trainer", (), {"iter": 0})()
    try:
        return {"garbage collection": _median(gc.collect), "memory guard": _median(lambda: guard._look(["self"]))}
    finally:
        gc.unfreeze()


Turn = tuple[float, float, float]  # seconds: by the clock, of the processor, of it inside of the hooks


def measure_variants(model: torch.nn.Module, batch: Any) -> tuple[dict[str, list[tuple[Turn, Turn]]], dict[str, float]]:
    """Let all variants take their turns.

    Returns:
        By variant the turns of each round, its own and that without guards, and :func:`seldom_s`.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    trainers = {}
    for name, make in variants().items():
        clock = Clock()
        trainer = TimedTrainer(model, [batch] * TURN, optimizer)
        trainer.register_hooks([clock.begin(), *make(), clock])
        trainers[name] = (trainer, clock)
    bare, *others = trainers
    rounds: dict[str, list[tuple[Turn, Turn]]] = {name: [] for name in others}
    draw = random.Random(0)
    for number in range(ROUNDS + 1):
        draw.shuffle(others)
        for name in others:
            pair = [name, bare]
            draw.shuffle(pair)
            turns = {each: _turn(*trainers[each]) for each in pair}
            if number:  # the first round fills caches
                rounds[name].append((turns[name], turns[bare]))
    return {name: rounds[name] for name in variants() if name in rounds}, seldom_s()


def _turn(trainer: TimedTrainer, clock: Clock) -> Turn:
    trainer.hooks_s = 0.0
    trainer.train(0, TURN)
    return (*clock.seconds, trainer.hooks_s)


def _print(rounds: dict[str, list[tuple[Turn, Turn]]], seldom: dict[str, float]) -> None:
    bare = [turn for pairs in rounds.values() for _, turn in pairs]
    base = [statistics.median(turn[clock] for turn in bare) / TURN for clock in range(3)]
    rows: list[list[Any]] = [[next(iter(variants())), *(round(seconds * 1e3, 2) for seconds in base[:2]), *[""] * 5]]
    for name, pairs in rounds.items():
        above = [statistics.median(mine[clock] - other[clock] for mine, other in pairs) / TURN for clock in range(3)]
        once = sum(cost for which, cost in seldom.items() if which == name or "all guards" in name)
        wall, cpu, inside = (100 * (seconds + once / PERIOD) for seconds in above)
        rows.append([
            name,
            *(round((base[clock] + above[clock] + once / PERIOD) * 1e3, 2) for clock in range(2)),
            round(wall / base[0], 2), round(cpu / base[1], 2), round(inside / base[1], 2),
            round(once * 1e3, 1) if once else "",
            f"below {GOAL:g} %" if name == "EMA and all guards" else "",
        ])  # fmt: skip
    headers = [
        "trainer",
        "step, ms",
        "CPU time, ms",
        "above, %",
        "CPU time above, %",
        "CPU time in the hooks, %",
        "once in 1000, ms",
        "goal",
    ]
    print_table(rows, headers, "Guards and averages: what they add to a step of the tiny Mask R-CNN")


def _median(function: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(9):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()
