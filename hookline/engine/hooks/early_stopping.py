"""Stopping when the evaluations get no better."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from hookline.engine.every import Every
from hookline.engine.hook_base import StopTraining
from hookline.engine.hooks.judging import JudgingHook

__all__ = ["EarlyStopping"]

logger = logging.getLogger(__name__)


class EarlyStopping(JudgingHook):
    """Ends training when a metric has not improved in so many evaluations.

    Register it on every rank, behind the evaluation. Rank 0, which has the results, decides for all of them; the run
    then ends like one that came to its last iteration. Each result counts once: where there is no new one, such as
    after an interrupted evaluation, nothing is counted. All of this survives a resume; a run that was stopped stops at
    once when it is resumed.

    Args:
        eval_period: iterations between two looks, the period of the evaluation.
        metric: its name, such as ``bbox/AP``.
        patience: evaluations without improvement after which training ends.
        min_improvement: a value must be better by more than this to count.
        mode: ``max`` if larger is better, ``min`` if smaller is.
        checkpointer: saves ``model_final`` at the stop, where given.

    Raises:
        ValueError: if the patience is not positive, the improvement negative or not finite, or the mode neither.

    Attributes:
        best: the best value so far, None before the first.
        best_iter: its iteration.
        waited: evaluations since then.
        stopped: whether the patience came to its end.
    """

    purpose = "stop early by"

    def __init__(
        self,
        eval_period: int | Every,
        metric: str,
        patience: int = 5,
        min_improvement: float = 0.0,
        mode: str = "max",
        checkpointer: Any = None,
    ) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience={patience!r}: expected a number of evaluations of at least 1")
        if not math.isfinite(min_improvement) or min_improvement < 0:
            raise ValueError(f"min_improvement={min_improvement}: expected a finite number of at least 0")
        super().__init__(eval_period, metric, mode)
        self._patience = patience
        self._least = min_improvement
        self._checkpointer = checkpointer
        self.best: float | None = None
        self.best_iter: int | None = None
        self.waited = 0
        self.stopped = False

    def before_step(self) -> None:
        """End training where it is decided, with every hook's work on the last step done.

        Raises:
            StopTraining: if the patience came to its end.
        """
        super().before_step()
        if not self.stopped:
            return
        trainer = self.trainer
        trainer.flush_metrics(self)
        if self._checkpointer is not None:
            self._checkpointer.save("model_final", iteration=trainer.iter - 1)
        raise StopTraining(
            f"{self._metric} did not improve by more than {self._least:g} in {self._patience} evaluations; the best "
            f"was {self.best} at iteration {self.best_iter}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and how long ago it was."""
        return {
            "best": self.best,
            "best_iter": self.best_iter,
            "waited": self.waited,
            "stopped": self.stopped,
            "seen_iter": self._seen_iter,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting where the run was."""
        self.best, self.best_iter = state["best"], state["best_iter"]
        self.waited, self._seen_iter = state["waited"], state["seen_iter"]
        self.stopped = state["stopped"] and self.waited >= self._patience  # a longer patience goes on

    def judge(self, value: float, iteration: int) -> None:
        """Count a value that is no improvement."""
        gain = math.inf if self.best is None else self._sign * (value - self.best)
        if math.isfinite(value) and gain > self._least:
            self.best, self.best_iter, self.waited = value, iteration, 0
            return
        self.waited += 1
        self.stopped = self.waited >= self._patience
        logger.info(
            "%s of %.5f at iteration %d is no improvement: %d of %d", *(self._metric, value, iteration),
            *(self.waited, self._patience),
        )  # fmt: skip
