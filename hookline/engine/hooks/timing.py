"""How long the steps take."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from hookline.engine.hook_base import HookBase

__all__ = ["IterationTimer"]

logger = logging.getLogger(__name__)


class IterationTimer(HookBase):
    """Records the seconds of each step as ``time``, and sums up at the end, over resumes too.

    The time of a step ends where this hook's ``after_step`` begins, so as the first hook it leaves out those of the
    others. Nothing waits for the device: on a GPU single values tell when work was handed over, means are right.

    Args:
        warmup_iter: the first steps of a process, which are left out because they are slower.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = self._left = warmup_iter
        self._step_start = self._train_start = 0.0
        self._steps_s = 0.0
        self._steps = 0
        self._total_s = 0.0

    def before_train(self) -> None:
        """Start the clock."""
        self._left = self._warmup_iter
        self._train_start = time.perf_counter()
        self.trainer.storage.forget("time")  # of another process, before a resume

    def before_step(self) -> None:
        """Start the step's clock."""
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        """Record the step's time."""
        if self._left > 0:
            self._left -= 1
            return
        seconds = time.perf_counter() - self._step_start
        self._steps_s += seconds
        self._steps += 1
        self.trainer.storage.put_scalar("time", seconds)

    def after_train(self) -> None:
        """Log the speed and the total time."""
        self._total_s, self._train_start = self._elapsed(), 0.0
        if self._steps > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                *(self._steps, _clock(self._steps_s), self._steps_s / self._steps),
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            _clock(self._total_s),
            _clock(max(0.0, self._total_s - self._steps_s)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the times so far."""
        return {"total_s": self._elapsed(), "steps_s": self._steps_s, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting from the times of the run so far."""
        self._total_s, self._steps_s, self._steps = state["total_s"], state["steps_s"], state["steps"]

    def _elapsed(self) -> float:
        running = time.perf_counter() - self._train_start if self._train_start else 0.0
        return self._total_s + running


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
