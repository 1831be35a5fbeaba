"""``train.validation_loss``: the losses on a validation set, in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig

from hookline.cli.checks import check_group, expect_bool
from hookline.cli.errors import UsageError
from hookline.cli.periods import build_every, check_period
from hookline.config import instantiate
from hookline.engine import Every, hooks
from hookline.evaluation import EvaluationInterrupted, StopWatcher

__all__ = [
    "build_validation_loader",
    "build_validation_loss",
    "check_validation_loss",
    "validation_every",
]

DEFAULTS: dict[str, Any] = {"period": None, "period_epochs": None, "after_train": True}
EXAMPLE = (
    "dataloader.validation = L(build_detection_test_loader)(dataset=..., mapper=L(DatasetMapper)(is_train=True, "
    "augmentations=[resizing only], ...)); see docs/evaluation.md"
)


def check_validation_loss(cfg: DictConfig) -> None:
    """Check ``train.validation_loss`` and that there is a loader for it.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    if cfg.train.validation_loss is None:
        return
    group = DEFAULTS | check_group("validation_loss", cfg.train.validation_loss, DEFAULTS)
    if (group["period"], group["period_epochs"]) != (None, None):
        check_period("validation_loss.period", group["period"], group["period_epochs"])
    expect_bool("validation_loss.after_train", group["after_train"])
    node = cfg.dataloader.get("validation")
    if node is None:
        raise UsageError(
            "train.validation_loss needs dataloader.validation, a finite loader with ground truth and without random "
            f"augmentation: {EXAMPLE}"
        )
    mapper = node.get("mapper") if isinstance(node, DictConfig) else None
    if isinstance(mapper, DictConfig) and mapper.get("is_train") is False:
        raise UsageError(
            "dataloader.validation.mapper.is_train=false: then samples have no ground truth, without which there is no "
            "loss; set it true"
        )


def build_validation_loader(cfg: DictConfig, limit: int | None = None) -> Any:
    """Build ``dataloader.validation`` if the run needs it.

    Args:
        cfg: the whole recipe, checked.
        limit: take only the first ``limit`` records of its data set.

    Raises:
        UsageError: if the loader is one that never ends.
    """
    if cfg.train.validation_loss is None:
        return None
    node = cfg.dataloader.validation
    records = {"dataset": instantiate(node.dataset)[:limit]} if limit and "dataset" in node else {}
    loader = instantiate(node, **records)
    if hasattr(loader, "seek"):
        raise UsageError(f"dataloader.validation: a {type(loader).__name__} never ends; for example {EXAMPLE}")
    return loader


def validation_every(train: DictConfig, loader: Any, evaluated: Every) -> Every | None:
    """Tell when a run measures the loss; with its evaluations where nothing else is said, None for never.

    Args:
        train: the node, checked.
        loader: the training loader.
        evaluated: when it evaluates.
    """
    if train.validation_loss is None:
        return None
    group = DEFAULTS | dict(train.validation_loss)
    if group["period"] is None and group["period_epochs"] is None:
        return evaluated
    return build_every(
        "validation_loss.period", group["period"], group["period_epochs"], loader, accumulate=train.accumulate
    )


def build_validation_loss(
    train: DictConfig, loader: Any, every: Every, should_stop: Callable[[], bool]
) -> hooks.ValidationLossHook:
    """Make the hook.

    Args:
        train: the node, checked.
        loader: of the validation set, this rank's part.
        every: when to measure.
        should_stop: asked before each batch, so that nobody waits for the end who wants to suspend the run.
    """
    group = DEFAULTS | dict(train.validation_loss)
    batches = _Stoppable(loader, should_stop)
    return hooks.ValidationLossHook(
        every, batches, group["after_train"], on_end=batches.agree, interruption=EvaluationInterrupted
    )


class _Stoppable:
    """A loader that all ranks leave together when one of them is asked to stop."""

    def __init__(self, loader: Any, should_stop: Callable[[], bool]) -> None:
        self._loader = loader
        self._should_stop = should_stop
        self._watcher: StopWatcher | None = None

    def __iter__(self) -> Iterator[Any]:
        self._watcher = watcher = StopWatcher(self._should_stop)
        for batch in self._loader:
            if watcher.stopped():
                break
            yield batch

    def agree(self) -> None:
        """Let all ranks learn whether one of them left early; then there is no result."""
        assert self._watcher is not None
        self._watcher.agree()
