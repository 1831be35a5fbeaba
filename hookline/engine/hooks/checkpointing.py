"""When the state of a run is saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from hookline.distributed import is_main_process
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase
from hookline.engine.hooks.judging import JudgingHook

__all__ = ["BestCheckpointer", "PeriodicCheckpointer"]

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(HookBase):
    """Saves ``model_0000019`` and the like every ``period`` iterations, and ``model_final`` after the last one.

    Losses are looked at first, so no step with a loss that is not finite gets into a checkpoint. Register it on every
    rank: only the main one writes, but then the losses of all ranks are looked at.

    Args:
        checkpointer: saves, see :class:`~hookline.engine.checkpoint.Checkpointer`.
        period: iterations between two checkpoints; 0 for the final one only.
        max_iter: the number of iterations after which the final one is due, by default that of the run.
        max_to_keep: how many periodic files stay on the disk, by default what the checkpointer says.
        file_prefix: how the files' names begin.
        save_last: save ``model_final``.
        save_optimizer: False for slim periodic files, which hold the model alone: a run cannot be resumed from them.
            ``model_final`` is whole in any case.

    Raises:
        ValueError: if ``max_to_keep`` is not positive.
    """

    def __init__(
        self,
        checkpointer: Any,
        period: int | Every,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
        *,
        save_last: bool = True,
        save_optimizer: bool = True,
    ) -> None:
        if max_to_keep is not None:
            if max_to_keep < 1:
                raise ValueError(f"max_to_keep={max_to_keep}: expected at least 1, or None")
            checkpointer.max_to_keep = max_to_keep
        self._checkpointer = checkpointer
        self._every = Every.of(period)
        self._max_iter = max_iter
        self._file_prefix = file_prefix
        self._save_last = save_last
        self._slim = {} if save_optimizer else {"save_optimizer": False}

    def before_train(self) -> None:
        """Say it where periodic files will not do for a resume."""
        if self._slim and is_main_process():
            logger.warning(
                "save_optimizer=False: periodic checkpoints hold the model alone, and a run that is killed cannot be "
                "resumed from them"
            )

    def after_step(self) -> None:
        """Save when it is time."""
        trainer = self.trainer
        iteration, max_iter = trainer.iter, self._max_iter or trainer.max_iter
        periodic, final = self._every(iteration), self._save_last and iteration + 1 >= max_iter
        if not periodic and not final:
            return
        trainer.flush_metrics(self)
        if periodic:
            self._checkpointer.save(f"{self._file_prefix}_{iteration:07d}", iteration=iteration, **self._slim)
        if final:
            self._checkpointer.save(f"{self._file_prefix}_final", iteration=iteration)
        trainer.wait_for_main(self)

    def after_train(self) -> None:
        """Wait for a checkpoint that is still being written."""
        _wait(self._checkpointer)


class BestCheckpointer(JudgingHook):
    """Saves the state whenever a metric is better than ever before.

    Register it behind the evaluation. A value counts once: an old one that is still in the storage is no reason to
    save. The best value and its iteration survive a resume.

    Args:
        eval_period: iterations between two looks, the period of the evaluation.
        checkpointer: saves, see :class:`~hookline.engine.checkpoint.Checkpointer`.
        val_metric: name of the metric, such as ``bbox/AP``.
        mode: ``max`` if larger is better, ``min`` if smaller is.
        file_prefix: name of the file.

    Raises:
        ValueError: if the mode is neither.
    """

    purpose = "choose the best checkpoint by"

    def __init__(
        self,
        eval_period: int | Every,
        checkpointer: Any,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        super().__init__(eval_period, val_metric, mode)
        self._checkpointer = checkpointer
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def after_train(self) -> None:
        """Look at the metric of the final evaluation, unless training failed."""
        if self.trainer.iter >= self.trainer.max_iter:
            self._look(self.trainer.iter - 1)
        _wait(self._checkpointer)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and when it was seen."""
        return {"best_metric": self.best_metric, "best_iter": self.best_iter, "seen_iter": self._seen_iter}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the best value of the run so far."""
        self.best_metric, self.best_iter = state["best_metric"], state["best_iter"]
        self._seen_iter = state["seen_iter"]

    def judge(self, value: float, iteration: int) -> None:
        """Remember a value if it is the best so far."""
        if not math.isfinite(value):
            logger.warning("%s is %s at iteration %d: not the best", self._metric, value, iteration)
            return
        before, before_iter = self.best_metric, self.best_iter
        if before is not None and not self._sign * value > self._sign * before:
            logger.info("%s of %.5f is not better than %.5f of iteration %d", self._metric, value, before, before_iter)
            return
        self.best_metric, self.best_iter = value, iteration
        logger.info("%s of %.5f is the best so far: saving %s", self._metric, value, self._file_prefix)

    def _look(self, finished_iter: int) -> None:
        """Save if the metric's newest value is the best; all ranks, since each may hold a part of the model."""
        self.trainer.flush_metrics(self)
        best_iter = self.best_iter
        super()._look(finished_iter)
        if self.best_iter != best_iter:
            self._checkpointer.save(self._file_prefix, iteration=finished_iter)
            self.trainer.wait_for_main(self)


def _wait(checkpointer: Any) -> None:
    wait = getattr(checkpointer, "wait", None)
    if wait is not None:
        wait()
