"""What measurements of the model between two steps have in common."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase

__all__ = ["MeasuringHook"]

logger = logging.getLogger(__name__)


class MeasuringHook(HookBase):
    """Measures the model periodically and at the end, and records the numbers as metrics; for subclasses.

    A run that is stopped during a measurement loses nothing: when it is resumed, the one that was due is done before
    the first step and recorded under the iteration where it belongs.

    Args:
        period: iterations between two measurements; 0 for the end only.
        after_train: measure once more when training has come to its end, unless the last step was measured.
        interruption: the exception by which :meth:`measure` says, on all ranks together, that it was asked to stop
            early. Then there are no numbers, and :class:`~hookline.engine.suspend.SuspendCheckpointer` ends the run.

    Attributes:
        unfinished: Whether the last measurement was interrupted.
    """

    what = "measurement"

    def __init__(
        self,
        period: int | Every,
        after_train: bool = True,
        *,
        interruption: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        self._every = Every.of(period)
        self._at_end = after_train
        self._interruption = interruption
        self.unfinished = False
        self._done_iter: int | None = None  # None where nothing tells what was measured
        self._is_assumed = False
        self._late: tuple[int, Mapping[str, float]] | None = None

    def measure(self) -> Mapping[str, float]:
        """Measure the model of ``self.trainer``; all ranks together.

        Returns:
            Numbers by the name of the metric, nothing on ranks that have none.

        Raises:
            NotImplementedError: always; for subclasses.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement measure()")

    def before_train(self) -> None:
        """Make up for a measurement that was due when the run was stopped."""
        last = self.trainer.start_iter - 1
        if self._done_iter is None:
            self._done_iter, self._is_assumed = last, True
        self.unfinished = False
        if last < 0 or last + 1 >= self.trainer.max_iter or self._done_iter >= last or not self._every(last):
            return
        logger.info("The %s of iteration %d was not finished before the run was stopped: doing it now", self.what, last)
        storage, start_iter = self.trainer.storage, self.trainer.storage.iter
        storage.iter = last  # where pictures belong that the measurement puts there
        numbers = self._measure()
        storage.iter = start_iter
        if numbers is not None:
            self._late = (last, numbers)
            self._done_iter, self._is_assumed = last, False

    def before_step(self) -> None:
        """Record, where writers are ready for it, what was measured before the first step."""
        if self._late is not None:
            (iteration, numbers), self._late = self._late, None
            self._record(numbers, iteration)

    def after_step(self) -> None:
        """Measure when it is time; the last iteration is left to the end."""
        iteration = self.trainer.iter
        if self._every(iteration) and not (iteration + 1 == self.trainer.max_iter and self._at_end):
            self._measure_and_record(iteration)

    def after_train(self) -> None:
        """Measure the final model, unless training failed."""
        trainer = self.trainer
        if not self._at_end or trainer.iter < trainer.max_iter:
            return
        if self._is_assumed or self._done_iter != trainer.iter - 1:  # else the run was stopped early, just after it
            self._measure_and_record(trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration up to which all measurements were finished."""
        return {} if self._done_iter is None else {"done_iter": self._done_iter}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know again what was measured."""
        self._done_iter = state["done_iter"]

    def _measure_and_record(self, iteration: int) -> None:
        numbers = self._measure()
        if numbers is not None:
            self._record(numbers, iteration)
            self._done_iter, self._is_assumed = iteration, False

    def _measure(self) -> Mapping[str, float] | None:
        """Measure; None if it was interrupted."""
        self.unfinished = False
        try:
            return self.measure()
        except self._interruption as reason:
            self.unfinished = True
            logger.warning("No results: %s. When the run goes on, this %s is done first", reason, self.what)
            return None

    def _record(self, numbers: Mapping[str, float], iteration: int) -> None:
        if numbers:
            self.trainer.storage.put_scalars(smoothing_hint=False, cur_iter=iteration, **numbers)
