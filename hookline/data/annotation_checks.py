"""Refusing annotations that would train a model on nonsense, by their id.

Axes: N annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hookline.data.errors import BadSampleError
from hookline.data.segmentations import Segmentations, annotation_name

__all__ = ["check_boxes", "check_segmentations"]

_NO_AREA = 1e-6  # square pixels; rounding leaves less on polygons that are lines


def check_boxes(annotations: Sequence[Mapping[str, Any]], boxes: np.ndarray, image_size: tuple[int, int]) -> None:
    """Refuse boxes without area and boxes outside the image; those that stick out are fine.

    Args:
        annotations: what the boxes belong to.
        boxes: float (N, 4) absolute XYXY in the original image.
        image_size: (height, width) of the original image.

    Raises:
        BadSampleError: naming the first annotation with such a box.
    """
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2]
    # written so that NaN counts as bad
    _refuse(
        annotations,
        ~(np.isfinite(boxes).all(axis=1) & (sides > 0).all(axis=1)),
        lambda row: (
            f"its box {annotations[row]['bbox']} has width {sides[row, 0]:g} and height {sides[row, 1]:g}, "
            "both must be above 0"
        ),
    )
    _refuse(
        annotations,
        _outside(boxes[:, :2], boxes[:, 2:], image_size),
        lambda row: f"its box {annotations[row]['bbox']} lies outside the image of {image_size} pixels (height, width)",
    )


def check_segmentations(
    annotations: Sequence[Mapping[str, Any]], segmentations: Segmentations, image_size: tuple[int, int]
) -> None:
    """Refuse masks that cover nothing, and polygons outside the image.

    Args:
        annotations: what the segmentations belong to.
        segmentations: of the N annotations in the original image.
        image_size: (height, width) of the original image.

    Raises:
        BadSampleError: naming the first such annotation.
    """
    for row, bitmap in segmentations.bitmaps.items():
        if not bitmap.any():
            raise BadSampleError("its mask has no pixel", annotation_id=annotation_name(annotations[row], row))
    if not segmentations.polygon_rows:
        return
    table = segmentations.polygons
    owners = [annotations[row] for row in segmentations.polygon_rows]
    _refuse(owners, table.areas() < _NO_AREA, lambda _: "its polygons are degenerate: they cover no area")
    low, high = table.per_annotation(np.minimum, table.points), table.per_annotation(np.maximum, table.points)
    _refuse(
        owners,
        _outside(low, high, image_size),
        lambda row: (
            f"its polygons, from {low[row].tolist()} to {high[row].tolist()}, lie outside the image of {image_size} "
            "pixels (height, width)"
        ),
    )


def _outside(low: np.ndarray, high: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Tell which extents (N, 2), (N, 2) as (x, y) have nothing in common with the image."""
    height, width = image_size
    return np.any((high <= 0) | (low >= (width, height)), axis=1)


def _refuse(annotations: Sequence[Mapping[str, Any]], bad: np.ndarray, message: Any) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise BadSampleError(message(row), annotation_id=annotation_name(annotations[row], row))
