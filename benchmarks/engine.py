"""What the engine costs: microseconds per iteration that hooks and writers add to a loop that only trains.

The model does next to nothing, so what is measured is the frame around it: timer, schedule, checkpoints, evaluation,
and console, JSON lines and TensorBoard every 20 iterations. After every 200 iterations of the engine a hook runs 200
of the bare loop, and each pair of rounds is compared by itself: a slow moment of the machine hits both, and what is
done once per run does not count. Stated beside them are the times of the processor alone: on a machine with other
work on it they are the ones to compare.

mmengine is measured where it is installed (``pip install mmengine``). Lightning Fabric has no loop with hooks: its rows
are the bare loop through ``fabric.backward`` and a logger of its own every 20 iterations.
"""

from __future__ import annotations

import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks import print_table
from hookline.engine import Checkpointer, HookBase, SimpleTrainer, hooks
from hookline.engine.schedule import CosineParamScheduler, WarmupParamScheduler
from hookline.engine.writers import CommonMetricPrinter, JSONWriter, TensorboardXWriter

ROUND = 200  # iterations
ROUNDS = 40
STEPS = ROUND * ROUNDS
GOALS = {1: 40.0, 5: 60.0}  # microseconds above the bare loop
OTHERS = {1: 164.0, 5: 223.0}  # Detectron2 0.6, on a machine whose bare loop took 200 us

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


class Pairs:
    """Times rounds of an engine and, between them, rounds of the bare loop.

    Args:
        num_losses: of the model.
        wrap: makes of the bare loop's model what it trains, on several processes.
    """

    def __init__(self, num_losses: int, wrap: Callable[[nn.Module], nn.Module] = lambda model: model) -> None:
        self.rounds: list[tuple[float, ...]] = []
        model, self._optimizer = parts(num_losses)
        self._model = wrap(model)
        self._left = ROUND
        self._since = _clocks()

    def tick(self) -> None:
        """Note that the engine has finished an iteration."""
        self._left -= 1
        if self._left:
            return
        engine = _seconds(self._since)
        start = _clocks()
        bare_loop(self._model, self._optimizer)
        self.rounds.append((*engine, *_seconds(start)))
        self._left, self._since = ROUND, _clocks()

    def row(self) -> list[float]:
        """Return microseconds per iteration: bare, engine, above bare, above bare of the processor alone."""
        rounds = self.rounds[3:]  # the first ones open files and fill caches
        columns = [
            statistics.median(bare for _, _, bare, _ in rounds),
            statistics.median(engine for engine, _, _, _ in rounds),
            statistics.median(engine - bare for engine, _, bare, _ in rounds),
            statistics.median(engine - bare for _, engine, _, bare in rounds),
        ]
        return [round(seconds / ROUND * 1e6, 1) for seconds in columns]


def main() -> None:
    """Print the table."""
    loops: dict[str, Callable[[int, Pairs, str], None]] = {
        "hookline, no hooks": without_hooks,
        "hookline, default hooks and writers": with_default_hooks,
        "Lightning Fabric, logging only": fabric,
        "mmengine, default hooks, TensorBoard": mmengine,
    }
    threads, rows = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for num_losses in (1, 5):
            for name, loop in loops.items():
                pairs = Pairs(num_losses)
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
                            loop(num_losses, pairs, folder)
                    except ImportError as error:
                        rows.append([num_losses, name, *[f"not installed ({error.name})"], "", "", "", "", ""])
                        continue
                is_ours = name.startswith("hookline, default")
                stated = [GOALS[num_losses], OTHERS[num_losses]] if is_ours else ["", ""]
                rows.append([num_losses, name, *pairs.row(), *stated])
    finally:
        torch.set_num_threads(threads)
    print_table(
        rows,
        [
            "losses",
            "engine",
            "bare, us",
            "engine, us",
            "above, us",
            "above (CPU time), us",
            "goal",
            "Detectron2, stated",
        ],
        "Engine: cost per iteration of a model that does nothing",
    )


def parts(num_losses: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model and its optimizer."""
    model = Idle(num_losses)
    return model, torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)


def bare_loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Train for a round without any frame, as one writes it by hand."""
    batches = iter([None] * ROUND)
    for _ in range(ROUND):
        losses = model(next(batches))
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Tick(HookBase):
    """Calls :meth:`Pairs.tick`; the last hook.

    Args:
        pairs: what is called.
    """

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def after_step(self) -> None:
        """Note the iteration."""
        self.pairs.tick()


def without_hooks(num_losses: int, pairs: Pairs, folder: str) -> None:
    """Train with the trainer alone."""
    model, optimizer = parts(num_losses)
    trainer = SimpleTrainer(model, [None] * STEPS, optimizer)
    trainer.register_hooks([Tick(pairs)])
    trainer.train(0, STEPS)


def with_default_hooks(
    num_losses: int,
    pairs: Pairs,
    folder: str,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
    more_hooks: Callable[[Checkpointer], list[HookBase]] = lambda checkpointer: [],
) -> None:
    """Train with everything that a run has by default."""
    model, optimizer = parts(num_losses)
    model = wrap(model)
    trainer = SimpleTrainer(model, [None] * STEPS, optimizer)
    logger = logging.getLogger("hookline")
    handler = logging.FileHandler(os.path.join(folder, "log.txt"))
    handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s]: %(message)s"))
    propagate, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    schedule = WarmupParamScheduler(CosineParamScheduler(1.0, 0.0), 0.001, 0.1)
    checkpointer = Checkpointer(model, folder, trainer=trainer)
    writers = [CommonMetricPrinter(STEPS), JSONWriter(f"{folder}/metrics.json"), TensorboardXWriter(folder)]
    trainer.register_hooks([
        hooks.IterationTimer(),
        hooks.LRScheduler(scheduler=schedule),
        hooks.PeriodicCheckpointer(checkpointer, 100 * STEPS),
        hooks.EvalHook(100 * STEPS, lambda: {"bbox": {"AP": 0.0}}),
        hooks.PeriodicWriter(writers, period=20),
        *more_hooks(checkpointer),
        Tick(pairs),
    ])  # fmt: skip
    try:
        trainer.train(0, STEPS)
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = propagate
        logger.setLevel(level)


def fabric(num_losses: int, pairs: Pairs, folder: str, **place: Any) -> None:
    """Train with Lightning Fabric, and log every 20 iterations; `place` tells it of several processes."""
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import CSVLogger

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    frame = Fabric(accelerator="cpu", loggers=CSVLogger(folder), **(place or {"devices": 1}))
    frame.launch()
    model, optimizer = frame.setup(*parts(num_losses))
    batches = iter([None] * STEPS)
    for step in range(STEPS):
        losses = model(next(batches))
        loss = sum(losses.values())
        optimizer.zero_grad()
        frame.backward(loss)
        optimizer.step()
        if (step + 1) % 20 == 0:
            frame.log_dict({**losses, "total_loss": loss}, step)
        pairs.tick()


def mmengine(num_losses: int, pairs: Pairs, folder: str, **place: Any) -> None:
    """Train with mmengine's runner and its default hooks, logging every 20 iterations, to TensorBoard too."""
    from mmengine.hooks import Hook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Idle(num_losses)

        def forward(self, inputs: Any, data_samples: Any = None, mode: str = "loss") -> dict[str, torch.Tensor]:
            return self.inner(inputs)

        def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
            loss, log = self.parse_losses(self.inner(data))
            optim_wrapper.update_params(loss)
            return log

    class TickHook(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner: Any, **unused: Any) -> None:
            pairs.tick()

    class Loader:
        """A loader as cheap as that of the others; mmengine asks for a data set and a sampler."""

        dataset: tuple[dict[str, None], ...] = ({"inputs": None},) * STEPS
        sampler = None
        batch_sampler = SimpleNamespace(sampler=None)

        def __iter__(self) -> Any:
            return iter(self.dataset)

        def __len__(self) -> int:
            return STEPS

    runner = Runner(
        model=Model(),
        work_dir=str(Path(folder) / "mmengine"),
        train_dataloader=Loader(),
        train_cfg={"by_epoch": False, "max_iters": STEPS},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.0, "momentum": 0.9}},
        param_scheduler={"type": "CosineAnnealingLR", "by_epoch": False, "T_max": STEPS},
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": 20},
            "checkpoint": {"type": "CheckpointHook", "interval": 100 * STEPS, "by_epoch": False, "save_last": False},
        },
        custom_hooks=[TickHook()],
        visualizer={"type": "Visualizer", "vis_backends": [{"type": "TensorboardVisBackend"}], "save_dir": folder},
        experiment_name=f"benchmark{time.time_ns()}",
        **place,
    )
    runner.train()


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _seconds(start: tuple[float, float]) -> tuple[float, float]:
    now = _clocks()
    return now[0] - start[0], now[1] - start[1]
