"""Looking into a run: where time and memory go."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import torch

from hookline.distributed import get_rank
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase
from hookline.io import PathManager

__all__ = ["TorchMemoryStats", "TorchProfiler"]

logger = logging.getLogger(__name__)


class TorchProfiler(HookBase):
    """Profiles the iterations that a predicate chooses and writes a trace of each.

    Example: ``TorchProfiler(lambda trainer: 10 <= trainer.iter < 20, output_dir)``.

    Args:
        enable_predicate: called with the trainer before each step; True profiles it.
        output_dir: the traces go to its sub-folder ``log``.
        activities: what is recorded, by default the CPU and, where there is one, the GPU.
        save_tensorboard: write for TensorBoard's profiler; else a trace for ``chrome://tracing`` and Perfetto.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str,
        *,
        activities: list[Any] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._folder = os.path.join(str(output_dir), "log")
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: Any = None

    def before_step(self) -> None:
        """Start the profiler if this step is chosen."""
        if not self._enable_predicate(self.trainer):
            return
        PathManager.mkdirs(self._folder)
        worker = f"worker{get_rank()}"
        handler = torch.profiler.tensorboard_trace_handler(self._folder, worker) if self._save_tensorboard else None
        self._profiler = torch.profiler.profile(
            activities=self._activities or _activities(),
            on_trace_ready=handler,
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
        )
        self._profiler.start()

    def after_step(self) -> None:
        """Write the trace of a chosen step."""
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        if not self._save_tensorboard:
            name = f"profiler-trace-iter{self.trainer.iter}-rank{get_rank()}.json"
            profiler.export_chrome_trace(os.path.join(self._folder, name))

    def after_train(self) -> None:
        """Stop the profiler if the step that it watches failed."""
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.stop()


class TorchMemoryStats(HookBase):
    """Logs what torch's allocator holds on the GPU every ``period`` iterations, at most ``max_runs`` times.

    Args:
        period: iterations between two reports.
        max_runs: reports altogether.
    """

    def __init__(self, period: int | Every = 20, max_runs: int = 10) -> None:
        self._every = Every.of(period, last=True)
        self._left = max_runs

    def before_train(self) -> None:
        """Say so if there is no GPU to report about."""
        if not torch.cuda.is_available():
            logger.info("TorchMemoryStats: torch can use no GPU here, so there is nothing to report")
            self._left = 0

    def after_step(self) -> None:
        """Report when it is time."""
        trainer = self.trainer
        if self._left <= 0 or not self._every(trainer.iter, trainer.max_iter):
            return
        self._left -= 1
        stats = torch.cuda.memory_stats()
        mib = {
            f"{now}_{what}": stats[f"{what}_bytes.all.{now}"] / 2**20
            for what in ("allocated", "reserved")
            for now in ("current", "peak")
        }
        text = "  ".join(f"{name}: {size:.0f}M" for name, size in mib.items())
        logger.info(" iter: %d  %s  retries: %d", trainer.iter, text, stats["num_alloc_retries"])
        if self._left == 0:
            logger.info("%s", torch.cuda.memory_summary())
        torch.cuda.reset_peak_memory_stats()


def _activities() -> list[Any]:
    chosen = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        chosen.append(torch.profiler.ProfilerActivity.CUDA)
    return chosen
