"""Evaluation during training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hookline.distributed import synchronize
from hookline.engine.every import Every
from hookline.engine.hooks.measuring import MeasuringHook

__all__ = ["EvalHook", "flatten_results"]


class EvalHook(MeasuringHook):
    """Calls an evaluation function periodically and at the end, and records its results as metrics.

    See :class:`~hookline.engine.hooks.measuring.MeasuringHook` for a run that is stopped meanwhile.

    Args:
        eval_period: iterations between two evaluations; 0 to evaluate at the end only.
        eval_function: called without arguments, on every rank that has this hook; returns a nested dict of numbers,
            such as ``{"bbox": {"AP": 41.2}}``, or nothing on ranks that have no results.
        eval_after_train: evaluate once more when training has come to its end.
        interruption: the exception by which the function says, on all ranks together, that it was asked to stop
            early, such as ``hookline.evaluation.EvaluationInterrupted``.
    """

    what = "evaluation"

    def __init__(
        self,
        eval_period: int | Every,
        eval_function: Callable[[], Any],
        eval_after_train: bool = True,
        *,
        interruption: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        super().__init__(eval_period, eval_after_train, interruption=interruption)
        self._function = eval_function

    def measure(self) -> Mapping[str, float]:
        """Evaluate."""
        results = self._function()
        synchronize()  # ranks that had nothing to evaluate must not run into the time-outs of the next step
        return flatten_results(results) if results else {}


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
