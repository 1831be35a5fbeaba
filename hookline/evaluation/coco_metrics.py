"""COCO's average precision: two back ends that give the same numbers, and the metrics read off their tables.

Axes of the tables: T overlap thresholds, R recall thresholds, K categories in the order of their ids, A area ranges,
M limits on detections per image and category. Entries are -1 where there is no ground truth.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hookline.evaluation.ground_truth import GroundTruth
from hookline.evaluation.predictions import Detections, ImageId

hotcoco: Any
try:
    import hotcoco
except ImportError:  # an optional dependency: only slower without it
    hotcoco = None

__all__ = [
    "METRICS",
    "PrecisionTables",
    "average_precision",
    "category_precision",
    "precision_tables",
    "recall_metrics",
]

logger = logging.getLogger(__name__)

METRICS = {
    "bbox": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "segm": ("AP", "AP50", "AP75", "APs", "APm", "APl"),
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl"),
}
_AREAS = {"s": "small", "m": "medium", "l": "large"}


@dataclass
class PrecisionTables:
    """What an evaluation measured.

    Attributes:
        precision: float64 (T, R, K, A, M).
        recall: float64 (T, K, A, M).
        iou_thresholds: T numbers, 0.5 to 0.95; of object keypoint similarity for keypoints.
        areas: A names: all, small, medium, large.
        max_dets: M numbers.
        category_ids: K ids in ascending order.
    """

    precision: np.ndarray
    recall: np.ndarray
    iou_thresholds: np.ndarray
    areas: list[str]
    max_dets: list[int]
    category_ids: list[int]


def precision_tables(
    task: str,
    ground_truth: GroundTruth,
    detections: Detections,
    *,
    max_dets: Sequence[int],
    kpt_oks_sigmas: Sequence[float] = (),
    image_ids: Collection[ImageId] | None = None,
    fast: bool = True,
) -> PrecisionTables:
    """Match detections with the ground truth and accumulate the tables.

    Args:
        task: ``bbox``, ``segm`` or ``keypoints``.
        ground_truth: of the data set.
        detections: at least one; their images must be in the ground truth.
        max_dets: limits on detections per image and category, ascending; keypoints have their own of 20.
        kpt_oks_sigmas: the spread of each keypoint, as a share of the object's size; COCO's 17 by default.
        image_ids: the images that count, by their own ids; all by default.
        fast: take hotcoco where it is installed; else pycocotools.

    Source:
        Lin et al., Microsoft COCO, 2014; https://cocodataset.org/#detection-eval and #keypoints-eval.
    """
    if fast and hotcoco is None:
        logger.info("hotcoco is not installed: pycocotools evaluates, which gives the same numbers but takes longer")
    make = _hotcoco if fast and hotcoco is not None else _pycocotools
    evaluation = make(task, ground_truth, _numbered(detections, ground_truth))
    params = evaluation.params
    if task != "keypoints":
        params.maxDets = list(max_dets)
    elif len(kpt_oks_sigmas):
        params.kpt_oks_sigmas = np.asarray(kpt_oks_sigmas, dtype=np.float64)
    if image_ids is not None:
        params.imgIds = sorted(ground_truth.number_of[k] for k in image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    tables = evaluation.eval
    return PrecisionTables(
        precision=np.asarray(tables["precision"]),
        recall=np.asarray(tables["recall"]),
        iou_thresholds=np.asarray(params.iouThrs),
        areas=list(params.areaRngLbl),
        max_dets=[int(limit) for limit in params.maxDets],
        category_ids=[int(k) for k in params.catIds],
    )


def _numbered(detections: Detections, ground_truth: GroundTruth) -> Detections:
    """Give the detections the images' numbers in the ground truth instead of their own ids."""
    return dataclasses.replace(detections, images=[ground_truth.number_of[k] for k in detections.images])


def _indexed(library: str, make: Callable[[dict], Any], task: str, ground_truth: GroundTruth) -> Any:
    """Build a library's index of the ground truth, once for all evaluations of a run."""
    key = f"{library} {task}"
    if key not in ground_truth.cache:
        content = {
            "info": {},
            "images": ground_truth.images,
            "annotations": ground_truth.annotations_for(task),
            "categories": ground_truth.categories,
        }
        ground_truth.cache[key] = make(content)
    return ground_truth.cache[key]


def _rows(task: str, detections: Detections) -> list[dict[str, Any]]:
    # with a box in the result, COCO would take the box's area for the mask's
    fields = {"bbox": ["bbox"], "segm": ["segmentation"], "keypoints": ["bbox", "keypoints"]}[task]
    return list(detections.results(fields=fields))


def _hotcoco(task: str, ground_truth: GroundTruth, detections: Detections) -> Any:
    coco = _indexed("hotcoco", hotcoco.COCO, task, ground_truth)
    if task == "bbox":
        assert detections.boxes is not None
        rows = np.empty((len(detections), 7))
        rows[:, 0] = np.array(detections.images)[detections.image_index]
        rows[:, 1:5] = detections.boxes
        rows[:, 5] = detections.scores
        rows[:, 6] = detections.category_ids
        found = coco.loadRes(rows)
    else:
        found = coco.loadRes(_rows(task, detections))
    return hotcoco.COCOeval(coco, found, task)


def _pycocotools(task: str, ground_truth: GroundTruth, detections: Detections) -> Any:
    # it needs half a second to load (matplotlib, where installed), which most runs can do without
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(content: dict[str, Any]) -> COCO:
        coco = COCO()
        coco.dataset = content
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        coco = _indexed("pycocotools", index, task, ground_truth)
        return COCOeval(coco, coco.loadRes(_rows(task, detections)), task)


def average_precision(task: str, tables: PrecisionTables) -> dict[str, float]:
    """Return the metrics of a task in percent; NaN where there is no ground truth.

    Args:
        task: names the metrics, see ``METRICS``. The largest limit on detections counts.
        tables: of an evaluation.
    """
    return {name: _metric(name[2:], tables.precision[:, :, :, :, -1], tables) for name in METRICS[task]}


def recall_metrics(tables: PrecisionTables) -> dict[str, float]:
    """Return the average recall at each limit on detections, and per area range at the largest, in percent."""
    recall = tables.recall[:, None]
    result = {f"AR{limit}": _metric("", recall[..., m], tables) for m, limit in enumerate(tables.max_dets)}
    letters = [letter for letter, area in _AREAS.items() if area in tables.areas]
    result.update({f"AR{letter}": _metric(letter, recall[..., -1], tables) for letter in letters})
    return result


def category_precision(tables: PrecisionTables, category_ids: Sequence[int], names: Sequence[str]) -> dict[str, float]:
    """Return ``{"AP-name": percent}`` of each category; NaN for one without ground truth.

    Args:
        tables: of an evaluation.
        category_ids: by class number.
        names: by class number.
    """
    place = {category: k for k, category in enumerate(tables.category_ids)}
    columns = [tables.precision[:, :, place[category], 0, -1] for category in category_ids]
    return {f"AP-{name}": _percent(column) for name, column in zip(names, columns, strict=True)}


def _metric(kind: str, values: np.ndarray, tables: PrecisionTables) -> float:
    """Average (T, R, K, A) as the rest of a metric's name says: nothing, a threshold in percent, an area's letter."""
    values = values[..., tables.areas.index(_AREAS.get(kind, "all"))]
    if kind.isdigit():
        values = values[np.isclose(tables.iou_thresholds, int(kind) / 100)]
    return _percent(values)


def _percent(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(np.mean(values) * 100) if values.size else float("nan")
