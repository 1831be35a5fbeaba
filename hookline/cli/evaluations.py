"""The evaluations of a recipe: one loader and one evaluator, or lists or named dicts of them, built once a run."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from hookline.cli.errors import UsageError
from hookline.cli.loggers import build_prediction_logger
from hookline.cli.pictures import PredictionPainter
from hookline.cli.validation import build_validation_loader
from hookline.config import instantiate
from hookline.distributed import broadcast, is_main_process
from hookline.engine.lockstep import Lockstep
from hookline.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset, print_csv_format
from hookline.io import atomic_open

__all__ = ["Evaluations"]

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


class Evaluations:
    """Run ``dataloader.evaluator`` over ``dataloader.test``, as often as asked.

    Both may be one recorded call, a list, or a dict with names; the metrics of several data sets carry the name (or
    the position) in front. Loaders and evaluators are built here and kept: whatever is wrong with them ends a run
    before its first step, not after its last one.

    Args:
        cfg: the whole recipe.
        limit: look only at the first ``limit`` records of each data set.
        show_dir: folder for pictures of predictions.
        out: file for the raw results, ``.json`` or ``.pkl``; of several data sets each puts its name in.
        in_training: build what the settings of a run ask for, which may be nothing, and ``dataloader.validation``.

    Attributes:
        loaders: the test loaders, by the name of the data set; empty where nothing is to be evaluated.
        validation: the loader for the validation loss, if there is to be one.
    """

    def __init__(
        self,
        cfg: DictConfig,
        *,
        limit: int | None = None,
        show_dir: str | None = None,
        out: str | None = None,
        in_training: bool = False,
    ) -> None:
        self._cfg = cfg
        self._limit = limit
        self._show_dir = show_dir
        self._out = out
        self.loaders: dict[str, Any] = {}  # by the name of the data set
        self._built = list(self._build()) if not in_training or _evaluates(cfg.train) else []
        self.validation = build_validation_loader(cfg, limit) if in_training else None

    def run(self, model: nn.Module, should_stop: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Evaluate the model; every rank takes part.

        Args:
            model: the model, on its device.
            should_stop: asked before each batch; see :func:`~hookline.evaluation.inference_on_dataset`.

        Returns:
            ``{task: {metric: value}}``, with ``name/`` before the task where there are several data sets; empty on
            other ranks than 0.
        """
        results: dict[str, Any] = {}
        for name, loader, evaluator in self._built:
            calls = Lockstep(model)
            ends = {"on_end": calls.finish}
            found = inference_on_dataset(calls, loader, evaluator, ends, should_stop=should_stop)
            if not is_main_process():
                continue
            print_csv_format(found)
            results.update({f"{name}/{task}" if name else task: values for task, values in found.items()})
            if self._out:
                self._save(name, evaluator)
        return results

    def metric_names(self, model: nn.Module) -> tuple[list[str], list[str]]:
        """List the metrics that :meth:`run` will give, as rank 0 knows them; every rank takes part.

        Args:
            model: what will be evaluated.

        Returns:
            The names, the most important one first, and the types of the evaluators that do not tell theirs.
        """
        return _from_main(lambda: self._metric_names(model))

    def class_names(self) -> dict[str, list[str]]:
        """Give the classes of the evaluators that have some, by the name of the data set; every rank takes part."""
        return _from_main(
            lambda: {name: classes for name, _, each in self._built if (classes := each.class_names()) is not None}
        )

    def _metric_names(self, model: nn.Module) -> tuple[list[str], list[str]]:
        known: list[str] = []
        silent: list[str] = []
        for name, _, evaluator in self._built:
            for part in getattr(evaluator, "evaluators", [evaluator]):
                found = part.metric_names(model)
                if found is None:
                    silent.append(type(part).__name__)
                known += [f"{name}/{metric}" if name else metric for metric in found or ()]
        return known, silent

    def _build(self) -> Iterator[tuple[str, Any, DatasetEvaluator]]:
        tests = _named(self._cfg.dataloader.get("test"), "dataloader.test")
        given = self._cfg.dataloader.get("evaluator")
        evaluators = _named(given, "dataloader.evaluator")
        if len(tests) == 1 and len(evaluators) > 1:  # several metrics on one data set
            evaluators = {next(iter(tests)): list(evaluators.values())}
        if tests.keys() != evaluators.keys():
            raise UsageError(
                f"dataloader.test has {list(tests)} and dataloader.evaluator {list(evaluators)}: "
                "give as many evaluators as test loaders, under the same names"
            )
        for name, node in tests.items():
            nodes = evaluators[name] if isinstance(evaluators[name], list) else [evaluators[name]]
            shared = any(_same_dataset(each, node) for each in nodes)
            limited = self._limit is not None and "dataset" in node
            records = instantiate(node.dataset)[: self._limit] if limited or shared else None
            loader = instantiate(node, dataset=records) if records is not None else instantiate(node)
            built = [
                instantiate(each, dataset=records)
                if records is not None and "dataset" in each and (self._limit or _same_dataset(each, node))
                else instantiate(each)
                for each in nodes
            ]
            self.loaders[name] = loader
            if self._show_dir:
                built.append(PredictionPainter(Path(self._show_dir) / name, node))
            if (pictures := build_prediction_logger(self._cfg, name, node)) is not None:
                built.append(pictures)
            yield name, loader, built[0] if len(built) == 1 else DatasetEvaluators(built)

    def _save(self, name: str, evaluator: DatasetEvaluator) -> None:
        path = Path(str(self._out))
        if name:
            path = path.with_name(f"{path.stem}_{name}{path.suffix}")
        parts = getattr(evaluator, "evaluators", [evaluator])
        source = next((part for part in parts if hasattr(part, "predictions")), None)
        if source is None:
            raise UsageError(f"--out {path}: no evaluator of this recipe keeps its predictions")
        if path.suffix == ".json":
            source.save_predictions(path)
        else:
            with atomic_open(path, "wb") as file:
                pickle.dump(source.predictions(), file)
        logger.info(f"Raw results: {path}")


def _evaluates(train: DictConfig) -> bool:
    """Tell whether a run's settings ask for any evaluation."""
    return bool(train.eval_period or train.eval_period_epochs or train.eval_after_train)


def _from_main(work: Callable[[], _T]) -> _T:
    """Let rank 0 do something for all; what fails there fails everywhere.

    Raises:
        UsageError: on other ranks, if it failed on rank 0.
    """
    result, error = None, None
    if is_main_process():
        try:
            result = work()
        except Exception as raised:
            error = raised
    result, text = broadcast((result, None if error is None else f"{type(error).__name__}: {error}"))
    if error is not None:
        raise error
    if text is not None:
        raise UsageError(f"rank 0: {text}")
    return result


def _same_dataset(evaluator: DictConfig, loader: DictConfig) -> bool:
    """Tell whether an evaluator's data set is an interpolation of its loader's, so that it need be read only once."""
    if "dataset" not in evaluator or "dataset" not in loader:
        return False
    return OmegaConf.is_interpolation(evaluator, "dataset") and evaluator.dataset is loader.dataset


def _named(nodes: Any, key: str) -> dict[str, Any]:
    """Bring one node, a list or a dict of nodes into one form.

    Raises:
        UsageError: if there is none.
    """
    if nodes is None:
        raise UsageError(f"{key} is missing in the recipe; --no-validate trains without evaluation")
    if isinstance(nodes, ListConfig):
        return {str(index): node for index, node in enumerate(nodes)} if len(nodes) > 1 else {"": nodes[0]}
    if isinstance(nodes, DictConfig) and "_target_" not in nodes:
        return {str(name): node for name, node in nodes.items()}
    return {"": nodes}
