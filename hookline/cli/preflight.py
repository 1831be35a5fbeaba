"""The check before iteration 0: classes of data, model and metric agree, category ids are in range, files exist."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from hookline.cli.errors import UsageError
from hookline.data.loader import part_size

__all__ = ["check_batch_size", "check_classes", "class_counts", "training_metadata"]

logger = logging.getLogger(__name__)


def check_batch_size(cfg: DictConfig, processes: int) -> None:
    """Refuse a batch that cannot be divided among the processes, before they are started.

    Args:
        cfg: the whole recipe.
        processes: how many there will be.

    Raises:
        UsageError: naming the nearest batch sizes that can.
    """
    size = OmegaConf.select(cfg, "dataloader.train.total_batch_size")
    if not isinstance(size, int):  # a loader of another kind, or one that says itself what is wrong with its size
        return
    try:
        part_size(size, processes)
    except ValueError as error:
        raise UsageError(f"dataloader.train.{error}") from None


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
        if isinstance(count, int) and not isinstance(count, bool) and count > 0 and not _is_about_other_classes(name):
            counts[name.removeprefix("module.")] = count
    return {
        name: count
        for name, count in counts.items()
        if count != 1 or not any(name.startswith(f"{outer}.") for outer in counts)
    }


def check_classes(
    cfg: DictConfig,
    model: nn.Module,
    loader: Any,
    tests: Mapping[str, Any] | None = None,
    evaluated: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Compare the classes of the training data, the model and the evaluators, and check every record.

    Args:
        cfg: the recipe.
        model: the model; every module with ``num_classes`` is looked at.
        loader: the training loader; its records are checked where it shows them.
        tests: the test loaders by name; their records are checked too.
        evaluated: the evaluators' classes, by the name of the data set; those without classes are left out.

    Raises:
        UsageError: naming the module or evaluator, its classes and those that it should have.
    """
    records, metadata = getattr(loader, "records", None), training_metadata(cfg)
    classes, counts = getattr(metadata, "thing_classes", None), class_counts(model)
    if classes is not None:
        _compare_counts(counts, classes, "the training data has", f"set model.{{}}.num_classes={len(classes)}")
    for name, found in (evaluated or {}).items():
        _check_evaluator(f"dataloader.evaluator{'.' if name else ''}{name}", found, classes, counts)
    num_classes = len(classes) if classes is not None else min(counts.values(), default=None)
    if records is None:
        logger.info(f"Preflight: {type(loader).__name__} shows no records, so its classes and files are not checked")
    else:
        _check_all_records([records], metadata, num_classes)
    shown = [test.records for test in (tests or {}).values() if getattr(test, "records", None) is not None]
    if records is not None:
        _check_all_records(shown, None, num_classes)
        logger.info(f"Preflight: {len(records)} records, classes {num_classes}, files found")


def _is_about_other_classes(name: str) -> bool:
    """Tell whether a module's classes are not those of the data: a backbone's of its pre-training, or of pixels."""
    return any(part == "backbone" or part.startswith("sem_seg") for part in name.split("."))


def _check_all_records(sets: Iterable[Any], metadata: Any, num_classes: int | None) -> None:
    from hookline.data.checks import check_records

    for records in sets:
        check_records(records, metadata, num_classes)


def _check_evaluator(key: str, found: Sequence[str], classes: Sequence[str] | None, counts: Mapping[str, int]) -> None:
    """Compare an evaluator's classes with those of the training data or, where it tells none, of the model.

    Other names in the same places are spelling, as far as anybody can tell, and only warned of.

    Raises:
        UsageError: if the numbers differ, or a class has another number.
    """
    if classes is None:
        _compare_counts(counts, found, f"{key} evaluates", "are data and model meant for each other?")
        return
    if len(found) != len(classes):
        raise UsageError(
            f"{key} has {len(found)} classes ({_some(found)}), but the training data has {len(classes)} "
            f"({_some(classes)}): give both the same classes in the same order"
        )
    pairs = [(number, here, there) for number, (here, there) in enumerate(zip(found, classes, strict=True))]
    different = [(number, here, there) for number, here, there in pairs if here != there]
    for number, here, there in different:
        if there in found:
            raise UsageError(
                f"{key}: class {number} is {here!r}, but {there!r} in the training data, which is number "
                f"{list(found).index(there)} there: give both the same classes in the same order"
            )
    if different:
        number, here, there = different[0]
        logger.warning(f"{key}: class {number} is called {here!r}, but {there!r} in the training data")


def _compare_counts(counts: Mapping[str, int], classes: Sequence[str], whose: str, advice: str) -> None:
    wrong = {name: count for name, count in counts.items() if count != len(classes)}
    if wrong:
        parts = ", ".join(f"model.{name}.num_classes={count}" for name, count in wrong.items())
        hint = advice.format(next(iter(wrong)))
        raise UsageError(f"{parts}, but {whose} {len(classes)} classes ({_some(classes)}): {hint}")


def _some(classes: Sequence[str]) -> str:
    return f"{', '.join(classes[:5])}{' ...' if len(classes) > 5 else ''}"


def training_metadata(cfg: DictConfig) -> Any:
    """Give the metadata of the training set where the recipe names it."""
    from hookline.data import MetadataCatalog

    dataset = cfg.dataloader.train.get("dataset")
    names = dataset if isinstance(dataset, str) else dataset.get("names") if isinstance(dataset, DictConfig) else None
    if names is None:
        return None
    return MetadataCatalog.get(names if isinstance(names, str) else names[0])
