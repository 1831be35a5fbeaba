"""What the engine costs: microseconds per iteration that hooks and writers add to a loop that only trains.

The model does next to nothing, so what is measured is the frame around it: all default hooks and writers (timer,
schedule, checkpoints, evaluation, console, JSON lines and TensorBoard every 20 iterations) against the bare loop of the
same process. The loops take turns in short rounds, and each round is compared with the bare one beside it, so a slow
moment of the machine hits both.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import print_table
from hookline.engine import Checkpointer, SimpleTrainer, hooks
from hookline.engine.schedule import CosineParamScheduler, WarmupParamScheduler
from hookline.engine.writers import CommonMetricPrinter, JSONWriter, TensorboardXWriter

STEPS = 400
ROUNDS = 30
GOALS = {1: 40.0, 5: 60.0}  # microseconds
OTHERS = {1: 164.0, 5: 223.0}  # Detectron2 0.6 on a two-core machine whose bare loop took 200 us

__all__ = ["main"]


class Idle(nn.Module):
    """A model of one parameter that returns a number of losses.

    Args:
        num_losses: how many.
    """

    def __init__(self, num_losses: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.num_losses = num_losses

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the losses."""
        return {f"loss_{i}": self.weight * 2.0 for i in range(self.num_losses)}


def main() -> None:
    """Print the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for num_losses in (1, 5) for row in _rows(num_losses)]
    finally:
        torch.set_num_threads(threads)
    print_table(
        rows,
        ["losses", "loop", "us per iteration", "above bare", "goal", "Detectron2, stated"],
        "Engine: cost per iteration of a model that does nothing",
    )


def _rows(num_losses: int) -> list[list[Any]]:
    """Measure all loops with that many losses."""
    with tempfile.TemporaryDirectory() as folder:
        loops: dict[str, Callable[[], Any]] = {
            "bare": lambda: _bare(num_losses),
            "hookline, no hooks": lambda: _trainer(num_losses).train(0, STEPS),
            "hookline, default hooks and writers": _Default(num_losses, folder),
        }
        mmengine = _mmengine(num_losses, folder)
        if mmengine is not None:
            loops["mmengine, default hooks and TensorBoard"] = mmengine
        times = _take_turns(loops)
    bare = times["bare"]
    rows: list[list[Any]] = []
    for name, seconds in times.items():
        above = statistics.median((s - b) / STEPS * 1e6 for s, b in zip(seconds, bare, strict=True))
        is_ours = name.startswith("hookline, default")
        rows.append([
            num_losses,
            name,
            round(statistics.median(seconds) / STEPS * 1e6, 1),
            "-" if name == "bare" else round(above, 1),
            GOALS[num_losses] if is_ours else "",
            OTHERS[num_losses] if is_ours else "",
        ])  # fmt: skip
    return rows


def _take_turns(loops: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(ROUNDS + 2):
        for name, loop in loops.items():
            start = time.perf_counter()
            loop()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    return times


def _parts(num_losses: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = Idle(num_losses)
    return model, torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)


def _bare(num_losses: int) -> None:
    """Train without any frame, as one writes it by hand."""
    model, optimizer = _parts(num_losses)
    batches = iter([None] * STEPS)
    for _ in range(STEPS):
        losses = model(next(batches))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _trainer(num_losses: int) -> SimpleTrainer:
    model, optimizer = _parts(num_losses)
    return SimpleTrainer(model, [None] * STEPS, optimizer)


class _Default:
    """Training with everything that a run has by default; one run goes on over all rounds.

    Args:
        num_losses: of the model.
        folder: for the files.
    """

    def __init__(self, num_losses: int, folder: str) -> None:
        self._done = 0
        end = STEPS * (ROUNDS + 2)
        logger = logging.getLogger("hookline")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.FileHandler(os.path.join(folder, "log.txt")))
        self._trainer = _trainer(num_losses)
        schedule = WarmupParamScheduler(CosineParamScheduler(1.0, 0.0), 0.001, 0.1)
        checkpointer = Checkpointer(self._trainer.model, folder, trainer=self._trainer)
        writers = [CommonMetricPrinter(end), JSONWriter(f"{folder}/metrics.json"), TensorboardXWriter(folder)]
        self._trainer.register_hooks([
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=schedule, max_iter=end),
            hooks.PeriodicCheckpointer(checkpointer, 10**9, max_iter=10**9),
            hooks.EvalHook(10**9, dict, eval_after_train=False),
            hooks.PeriodicWriter(writers, period=20),
        ])  # fmt: skip

    def __call__(self) -> None:
        """Run the next round."""
        self._trainer.train(self._done, self._done + STEPS)
        self._done += STEPS


def _mmengine(num_losses: int, folder: str) -> Callable[[], Any] | None:
    """Make the same training in mmengine's runner, where it is installed."""
    try:
        from mmengine.model import BaseModel
        from mmengine.runner import Runner
    except ImportError:
        return None

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Idle(num_losses)

        def forward(self, inputs: Any, data_samples: Any = None, mode: str = "loss") -> dict[str, torch.Tensor]:
            return self.inner(inputs)

    class Loader(list):  # mmengine asks a loader for its data set
        dataset: list[None] = []  # noqa: RUF012

    def run() -> None:
        runner = Runner(
            model=Model(),
            work_dir=os.path.join(folder, "mmengine"),
            train_dataloader=torch.utils.data.DataLoader([0] * STEPS, batch_size=1),
            train_cfg={"by_epoch": False, "max_iters": STEPS},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.0, "momentum": 0.9}},
            param_scheduler={"type": "CosineAnnealingLR", "by_epoch": False, "T_max": STEPS},
            default_hooks={
                "logger": {"type": "LoggerHook", "interval": 20},
                "checkpoint": {"type": "CheckpointHook", "interval": 10**9, "by_epoch": False, "save_last": False},
            },
            visualizer={"type": "Visualizer", "vis_backends": [{"type": "TensorboardVisBackend"}]},
            log_level="WARNING",
            experiment_name=f"bench{time.time_ns()}",
        )
        runner.train()

    return run
