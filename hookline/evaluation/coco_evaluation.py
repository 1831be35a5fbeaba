"""From ground truth and detections to COCO's metrics, with or without a model at hand."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hookline.evaluation.coco_metrics import (
    METRICS,
    average_precision,
    category_precision,
    precision_tables,
    recall_metrics,
)
from hookline.evaluation.ground_truth import GroundTruth, load_ground_truth
from hookline.evaluation.predictions import Detections, ImageId
from hookline.evaluation.results_file import detections_from_results, read_results
from hookline.evaluation.tables import category_table, metric_table

__all__ = ["CocoSettings", "evaluate_detections", "evaluate_predictions", "metric_names"]

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]


@dataclass(frozen=True)
class CocoSettings:
    """How to evaluate.

    Args:
        tasks: which of ``bbox``, ``segm``, ``keypoints``; None for what the detections hold and the data set has.
        max_dets_per_image: how many predictions of a category count in an image, 100 by default; or several such
            limits, of which the largest counts for the precision.
        kpt_oks_sigmas: spread of each keypoint, as a share of the object's size; COCO's 17 by default.
        fast: hotcoco, where it is installed, instead of pycocotools; the numbers are the same.

    Raises:
        ValueError: an unknown task or impossible limits.
    """

    tasks: tuple[str, ...] | None = None
    max_dets_per_image: int | Sequence[int] | None = None
    kpt_oks_sigmas: tuple[float, ...] = ()
    fast: bool = True

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks or () if task not in METRICS]:
            raise ValueError(f"unknown task {unknown[0]!r}; known: {', '.join(METRICS)}")
        if not self.limits() or self.limits()[0] < 1:
            raise ValueError(f"max_dets_per_image must be positive, got {self.max_dets_per_image!r}")

    def limits(self) -> list[int]:
        """Return the limits on detections per image and category, ascending."""
        given = self.max_dets_per_image
        if given is None or isinstance(given, int):
            return sorted({1, 10, 100 if given is None else given})
        return sorted(given)


def evaluate_predictions(
    results: str | os.PathLike[str] | Sequence[dict[str, Any]],
    dataset: str | os.PathLike[str] | Sequence[Record],
    *,
    metadata: Any = None,
    tasks: Sequence[str] | None = None,
    max_dets_per_image: int | Sequence[int] | None = None,
    kpt_oks_sigmas: Sequence[float] = (),
    use_fast_impl: bool = True,
) -> OrderedDict[str, Any]:
    """Evaluate saved COCO results, without the model.

    Args:
        results: as ``COCOEvaluator.predictions`` returns them, or the file that ``save_predictions``, ``--out`` or
            another tool wrote.
        dataset: the records of the data set, or the path of a COCO JSON file.
        metadata: of the data set; records need it.
        tasks: see ``CocoSettings``, as for the arguments that follow.
        max_dets_per_image: limit or limits.
        kpt_oks_sigmas: spread of each keypoint.
        use_fast_impl: hotcoco instead of pycocotools.

    Returns:
        ``{task: {metric: percent}}``, the numbers that the evaluator gave when it wrote them.

    Raises:
        ValueError: a result cannot be used; the message names it.
    """
    settings = CocoSettings(_tuple(tasks), max_dets_per_image, tuple(kpt_oks_sigmas), use_fast_impl)
    rows = read_results(results) if isinstance(results, (str, os.PathLike)) else results
    detections = detections_from_results(rows)
    ground_truth = load_ground_truth(dataset, metadata)
    known = set(ground_truth.category_ids)
    for row, category in enumerate(detections.category_ids.tolist()):
        if category not in known:
            where = f"result {row} (image {detections.images[detections.image_index[row]]!r})"
            raise ValueError(f"{where}: {ground_truth.source} has no category {category}")
    return evaluate_detections(ground_truth, detections, settings)


def _tuple(tasks: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if tasks is None else tuple(tasks)


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings,
    image_ids: Collection[ImageId] | None = None,
) -> OrderedDict[str, Any]:
    """Evaluate every task and log its tables.

    Args:
        ground_truth: of the data set.
        detections: on its images.
        settings: how.
        image_ids: the images that count, all by default.

    Returns:
        ``{task: {metric: percent}}`` with the names of :func:`metric_names`; without any detection all are NaN.
    """
    _check_images(ground_truth, detections, image_ids)
    results: OrderedDict[str, Any] = OrderedDict()
    for task in _choose_tasks(ground_truth, detections, settings.tasks):
        if len(detections) == 0:
            logger.warning(f"No predictions at all: the metrics of {task} are NaN")
            results[task] = dict.fromkeys(metric_names(task, ground_truth), math.nan)
        else:
            results[task] = _evaluate_task(task, ground_truth, detections, settings, image_ids)
    return results


def metric_names(task: str, ground_truth: GroundTruth) -> list[str]:
    """List the metrics of a task: those of all classes and, where there are several, one of each.

    Args:
        task: ``bbox``, ``segm`` or ``keypoints``.
        ground_truth: of the data set.
    """
    classes = ground_truth.class_names
    return list(dict.fromkeys([*METRICS[task], *(f"AP-{name}" for name in classes if len(classes) > 1)]))


def _evaluate_task(
    task: str,
    ground_truth: GroundTruth,
    detections: Detections,
    settings: CocoSettings,
    image_ids: Collection[ImageId] | None,
) -> dict[str, float]:
    start = time.perf_counter()
    tables = precision_tables(
        task,
        ground_truth,
        detections,
        max_dets=settings.limits(),
        kpt_oks_sigmas=settings.kpt_oks_sigmas,
        image_ids=image_ids,
        fast=settings.fast,
    )
    metrics = average_precision(task, tables)
    seconds = time.perf_counter() - start
    logger.info(f"Evaluated {task} of {len(detections)} predictions in {seconds:.2f} s:\n{metric_table(metrics)}")
    logger.info(f"Average recall of {task}:\n{metric_table(recall_metrics(tables))}")
    if len(ground_truth.class_names) > 1:
        by_category = category_precision(tables, ground_truth.category_ids, ground_truth.class_names)
        logger.info(f"Per category {task} AP:\n{category_table(by_category)}")
        metrics.update(by_category)
    return metrics


def _choose_tasks(ground_truth: GroundTruth, detections: Detections, tasks: Sequence[str] | None) -> list[str]:
    possible = detections.tasks() or ["bbox"]
    if tasks is not None:
        impossible = [task for task in tasks if len(detections) and task not in possible]
        if impossible:
            raise ValueError(f"the predictions hold nothing for the task {impossible[0]!r}, only {', '.join(possible)}")
        return list(tasks)
    without = [task for task in possible if not ground_truth.has(task)]
    if without:
        logger.warning(f"Not evaluated, as {ground_truth.source} has no such annotations: {', '.join(without)}")
    return [task for task in possible if task not in without]


def _check_images(ground_truth: GroundTruth, detections: Detections, image_ids: Collection[ImageId] | None) -> None:
    for what, ids in (("predictions for", detections.images), ("img_ids names", image_ids or ())):
        unknown = set(ids) - ground_truth.number_of.keys()
        if unknown:
            first, count = min(unknown, key=str), len(unknown)
            raise ValueError(f"{what} image {first!r}, which {ground_truth.source} does not have ({count} such images)")
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in ground_truth.images}
    by_place = [sizes[ground_truth.number_of[k]] for k in detections.images]
    for place, rle in zip(detections.image_index.tolist(), detections.rles or (), strict=False):
        if None not in by_place[place] and tuple(rle["size"]) != by_place[place]:
            raise ValueError(
                f"image {detections.images[place]!r}: a predicted mask has (height, width) {tuple(rle['size'])}, "
                f"the image has {by_place[place]}"
            )
