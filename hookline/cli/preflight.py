"""The check before iteration 0: classes of data, model and metric agree, category ids are in range, files exist."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from torch import nn

from hookline.cli.errors import UsageError

__all__ = ["check_classes", "class_counts", "training_metadata"]

logger = logging.getLogger(__name__)


def class_counts(model: nn.Module) -> dict[str, int]:
    """Find every module that says for how many classes it was built, through any wrapper.

    A part with one class inside of a module that counts them, such as a mask head whose classes share a mask, is left
    out: it fits every data set.

    Args:
        model: any module.

    Returns:
        ``num_classes`` by the module's name in the model, e.g. ``{"roi_heads": 80}``.
    """
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        count = getattr(module, "num_classes", None)
        if isinstance(count, int) and not isinstance(count, bool):
            counts[name.removeprefix("module.")] = count
    return {
        name: count
        for name, count in counts.items()
        if count != 1 or not any(name.startswith(f"{outer}.") for outer in counts)
    }


def check_classes(cfg: DictConfig, model: nn.Module, loader: Any, tests: Mapping[str, Any] | None = None) -> None:
    """Compare the model's class counts with the data set's list of classes and check every record.

    Args:
        cfg: the recipe.
        model: the model; every module with ``num_classes`` is looked at.
        loader: the training loader; checked where it shows its ``records``.
        tests: the test loaders by name; their records are checked too.

    Raises:
        UsageError: naming the module, its count and the data set's classes.
    """
    records = getattr(loader, "records", None)
    if records is None:
        logger.info(f"Preflight: {type(loader).__name__} shows no records, so classes and files are not checked")
        return
    from hookline.data.checks import check_records

    metadata = training_metadata(cfg)
    classes = getattr(metadata, "thing_classes", None)
    counts = class_counts(model)
    if classes is not None:
        wrong = {name: count for name, count in counts.items() if count != len(classes)}
        if wrong:
            parts = ", ".join(f"model.{name}.num_classes={count}" for name, count in wrong.items())
            raise UsageError(
                f"{parts}, but the training data has {len(classes)} classes ({', '.join(classes[:5])}"
                f"{' ...' if len(classes) > 5 else ''}): set model.{next(iter(wrong))}.num_classes={len(classes)}"
            )
    num_classes = len(classes) if classes is not None else min(counts.values(), default=None)
    check_records(records, metadata, num_classes)
    for test in (tests or {}).values():
        if getattr(test, "records", None) is not None:
            check_records(test.records, None, num_classes)
    logger.info(f"Preflight: {len(records)} records, classes {num_classes}, files found")


def training_metadata(cfg: DictConfig) -> Any:
    """Give the metadata of the training set where the recipe names it."""
    from hookline.data import MetadataCatalog

    dataset = cfg.dataloader.train.get("dataset")
    names = dataset if isinstance(dataset, str) else dataset.get("names") if isinstance(dataset, DictConfig) else None
    if names is None:
        return None
    return MetadataCatalog.get(names if isinstance(names, str) else names[0])
