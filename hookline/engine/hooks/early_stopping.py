"""Stopping when the evaluations get no better."""

from __future__ import annotations

import difflib
import logging
import math
from collections.abc import Mapping
from typing import Any

from hookline.distributed import broadcast, is_main_process
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase, StopTraining

__all__ = ["EarlyStopping"]

logger = logging.getLogger(__name__)


class EarlyStopping(HookBase):
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
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: expected 'max' or 'min'")
        self._every = Every.of(eval_period)
        self._metric = metric
        self._patience = patience
        self._least = min_improvement
        self._sign = 1.0 if mode == "max" else -1.0
        self._checkpointer = checkpointer
        self._seen_iter = -1
        self.best: float | None = None
        self.best_iter: int | None = None
        self.waited = 0
        self.stopped = False

    @property
    def state_key(self) -> str:
        """The name of this hook's state in a checkpoint: one for each metric."""
        return f"{type(self).__qualname__}.{self._metric}"

    def before_step(self) -> None:
        """End training where it is decided, with every hook's work on the last step done.

        Raises:
            StopTraining: if the patience came to its end.
        """
        trainer = self.trainer
        if trainer.iter == trainer.start_iter > 0 and self._every(trainer.iter - 1):
            self._look()  # at an evaluation that a resumed run made up for
        if not self.stopped:
            return
        trainer.flush_metrics(self)
        if self._checkpointer is not None:
            self._checkpointer.save("model_final", iteration=trainer.iter - 1)
        raise StopTraining(
            f"{self._metric} did not improve by more than {self._least:g} in {self._patience} evaluations; the best "
            f"was {self.best} at iteration {self.best_iter}"
        )

    def after_step(self) -> None:
        """Look at the metric when it is time; at the end there is nothing left to stop."""
        iteration = self.trainer.iter
        if self._every(iteration) and iteration + 1 != self.trainer.max_iter:
            self._look()

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

    def _look(self) -> None:
        """Count the newest value on rank 0, and give all ranks its count."""
        if is_main_process():
            self._count()
        self.load_state_dict(broadcast(self.state_dict()))

    def _count(self) -> None:
        found = self.trainer.storage.latest().get(self._metric)
        if found is None:
            self._warn_of_missing()
            return
        value, iteration = found
        if iteration <= self._seen_iter:
            return
        self._seen_iter = iteration
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

    def _warn_of_missing(self) -> None:
        names = sorted(name for name, smoothed in self.trainer.storage.smoothing_hints().items() if not smoothed)
        near = difflib.get_close_matches(self._metric, names, n=3) or names
        logger.warning("no metric %r to stop early by; there are: %s", self._metric, ", ".join(near) or "none")
