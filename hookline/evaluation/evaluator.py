"""What an evaluator is, and several of them as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["DatasetEvaluator", "DatasetEvaluators"]


class DatasetEvaluator(ABC):
    """Turn the outputs of a model on a data set into numbers.

    ``inference_on_dataset`` calls it on every rank like this::

        evaluator.reset()
        for inputs in loader:                       # this rank's share of the data set
            evaluator.process(inputs, model(inputs))
        results = evaluator.evaluate()              # gathers; {} on all ranks but the first
    """

    def reset(self) -> None:  # noqa: B027 (an evaluator without state needs none)
        """Forget what was processed; called before a run over the data set."""

    @abstractmethod
    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in one batch; keep no more than the metric needs.

        Args:
            inputs: the samples that the model was given.
            outputs: its predictions, one per sample.
        """

    def evaluate(self) -> Mapping[str, Any] | None:
        """Compute the metrics of what was processed; every rank calls it.

        Returns:
            ``{task: {metric: value}}`` on rank 0, nothing or an empty mapping on the others.
        """
        return None

    def metric_names(self, model: Any = None) -> list[str] | None:
        """List the names of the metrics that ``evaluate`` will give, so that a wrong one is found before training.

        Args:
            model: what will be evaluated, for evaluators whose metrics depend on what it predicts.

        Returns:
            Names such as ``bbox/AP``, the most important one first; None where they are not known before.
        """
        return None

    def class_names(self) -> list[str] | None:
        """List the classes that the metrics are about, by class number; None where there are none."""
        return None


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators fed from one run of the model.

    Args:
        evaluators: they are called in this order; their tasks must have different names.

    Attributes:
        evaluators: the same.

    Raises:
        TypeError: something is no evaluator.
    """

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        for evaluator in evaluators:
            if not isinstance(evaluator, DatasetEvaluator):
                raise TypeError(f"expected DatasetEvaluator objects, got {type(evaluator).__name__}")
        self.evaluators = list(evaluators)

    def reset(self) -> None:
        """Reset all."""
        for evaluator in self.evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Show one batch to all."""
        for evaluator in self.evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> OrderedDict[str, Any]:
        """Evaluate all, in order.

        Returns:
            The results of all under the names of their tasks.

        Raises:
            ValueError: two evaluators name a task alike.
        """
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self.evaluators:
            for task, metrics in (evaluator.evaluate() or {}).items():
                if task in results:
                    raise ValueError(f"two evaluators give results under the name {task!r}")
                results[task] = metrics
        return results

    def metric_names(self, model: Any = None) -> list[str] | None:
        """List the metrics of all, in order; None where one of them does not know its own.

        Args:
            model: what will be evaluated.
        """
        found = [evaluator.metric_names(model) for evaluator in self.evaluators]
        return None if None in found else [name for names in found for name in names or ()]

    def class_names(self) -> list[str] | None:
        """Give the classes of the first evaluator that has some."""
        return next((names for each in self.evaluators if (names := each.class_names()) is not None), None)
