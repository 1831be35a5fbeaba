"""Evaluation during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hookline.distributed import synchronize
from hookline.engine.every import Every
from hookline.engine.train_loop import HookBase

__all__ = ["EvalHook", "flatten_results"]


class EvalHook(HookBase):
    """Calls an evaluation function periodically and at the end, and records its results as metrics.

    Args:
        eval_period: iterations between two evaluations; 0 to evaluate at the end only.
        eval_function: called without arguments, on every rank that has this hook; returns a nested dict of numbers,
            such as ``{"bbox": {"AP": 41.2}}``, or nothing on ranks that have no results.
        eval_after_train: evaluate once more when training has come to its end.
    """

    def __init__(
        self, eval_period: int | Every, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None:
        self._every = Every.of(eval_period)
        self._function = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        """Evaluate when it is time; the last iteration is left to the end."""
        iteration = self.trainer.iter
        if self._every(iteration) and not (iteration + 1 == self.trainer.max_iter and self._eval_after_train):
            self._evaluate()

    def after_train(self) -> None:
        """Evaluate the final model, unless training failed."""
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._evaluate()

    def _evaluate(self) -> None:
        results = self._function()
        if results:
            self.trainer.storage.put_scalars(smoothing_hint=False, **flatten_results(results))
        synchronize()  # ranks that had nothing to evaluate must not run into the time-outs of the next step


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
