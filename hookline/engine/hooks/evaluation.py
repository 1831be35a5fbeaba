"""Evaluation during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from hookline.distributed import synchronize
from hookline.engine.every import Every
from hookline.engine.train_loop import HookBase

__all__ = ["EvalHook", "flatten_results"]

logger = logging.getLogger(__name__)


class EvalHook(HookBase):
    """Calls an evaluation function periodically and at the end, and records its results as metrics.

    A run that is stopped during an evaluation loses nothing: when it is resumed, the evaluation that was due is done
    before the first step and recorded under the iteration where it belongs.

    Args:
        eval_period: iterations between two evaluations; 0 to evaluate at the end only.
        eval_function: called without arguments, on every rank that has this hook; returns a nested dict of numbers,
            such as ``{"bbox": {"AP": 41.2}}``, or nothing on ranks that have no results.
        eval_after_train: evaluate once more when training has come to its end.
        interruption: the exception by which the function says, on all ranks together, that it was asked to stop
            early, such as ``hookline.evaluation.EvaluationInterrupted``. Then there are no results, and
            :class:`~hookline.engine.suspend.SuspendCheckpointer` ends the run.

    Attributes:
        unfinished: Whether the last evaluation was interrupted.
    """

    def __init__(
        self,
        eval_period: int | Every,
        eval_function: Callable[[], Any],
        eval_after_train: bool = True,
        *,
        interruption: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        self._every = Every.of(eval_period)
        self._function = eval_function
        self._eval_after_train = eval_after_train
        self._interruption = interruption
        self.unfinished = False
        self._done_iter: int | None = None  # None where nothing tells what was evaluated
        self._late_results: tuple[int, Mapping[str, Any]] | None = None

    def before_train(self) -> None:
        """Make up for an evaluation that was due when the run was stopped."""
        last = self.trainer.start_iter - 1
        if self._done_iter is None:
            self._done_iter = last
        self.unfinished = False
        if last < 0 or last + 1 >= self.trainer.max_iter or self._done_iter >= last or not self._every(last):
            return
        logger.info("The evaluation of iteration %d was not finished before the run was stopped: doing it now", last)
        storage, start_iter = self.trainer.storage, self.trainer.storage.iter
        storage.iter = last  # where pictures belong that the evaluation puts there
        results = self._call()
        storage.iter = start_iter
        if not self.unfinished:
            self._late_results = (last, results or {})
            self._done_iter = last

    def before_step(self) -> None:
        """Record, where writers are ready for it, what was evaluated before the first step."""
        if self._late_results is not None:
            (iteration, results), self._late_results = self._late_results, None
            self._record(results, iteration)

    def after_step(self) -> None:
        """Evaluate when it is time; the last iteration is left to the end."""
        iteration = self.trainer.iter
        if self._every(iteration) and not (iteration + 1 == self.trainer.max_iter and self._eval_after_train):
            self._evaluate(iteration)

    def after_train(self) -> None:
        """Evaluate the final model, unless training failed."""
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._evaluate(self.trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        """Return the iteration up to which all evaluations were finished."""
        return {} if self._done_iter is None else {"done_iter": self._done_iter}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know again what was evaluated."""
        self._done_iter = state["done_iter"]

    def _evaluate(self, iteration: int) -> None:
        results = self._call()
        if self.unfinished:
            return
        self._record(results, iteration)
        self._done_iter = iteration

    def _call(self) -> Any:
        self.unfinished = False
        results = None
        try:
            results = self._function()
        except self._interruption as reason:
            self.unfinished = True
            logger.warning("No results: %s. When the run goes on, this evaluation is done first", reason)
        synchronize()  # ranks that had nothing to evaluate must not run into the time-outs of the next step
        return results

    def _record(self, results: Mapping[str, Any] | None, iteration: int) -> None:
        if results:
            flat = flatten_results(results)
            self.trainer.storage.put_scalars(smoothing_hint=False, cur_iter=iteration, **flat)


def flatten_results(results: Mapping[str, Any]) -> dict[str, float]:
    """Flatten nested results to numbers by path, such as ``bbox/AP``.

    Args:
        results: nested dicts whose leaves are numbers.

    Raises:
        TypeError: if the results are no dict.
        ValueError: if a leaf is no number; names it.
    """
    if not isinstance(results, Mapping):
        raise TypeError(f"an evaluation must return a nested dict of numbers, got {type(results).__name__}")
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{path}": number for path, number in flatten_results(value).items()})
            continue
        try:
            flat[str(name)] = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"an evaluation must return a nested dict of numbers, got {name}={value!r}") from error
    return flat
