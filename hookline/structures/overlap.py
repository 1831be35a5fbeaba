"""How much boxes overlap.

Axes: N boxes of the first set, M of the second. Boxes without area overlap nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hookline.structures.boxes import Boxes


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return the area that each pair shares, float32 (N, M) in square pixels."""
    # column by column: four (N, M) passes over contiguous memory instead of strided (N, M, 2) ones
    first, second = boxes1.tensor.unbind(1), boxes2.tensor.unbind(1)
    x0, y0 = (torch.maximum(first[i][:, None], second[i]) for i in (0, 1))
    width, height = (torch.minimum(first[i][:, None], second[i]) for i in (2, 3))
    return (width.sub_(x0).clamp_(min=0)).mul_(height.sub_(y0).clamp_(min=0))


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return intersection over union of each pair, float32 (N, M) in [0, 1]; 0 where the intersection is empty."""
    intersection = pairwise_intersection(boxes1, boxes2)
    union = (boxes1.area()[:, None] + boxes2.area()).sub_(intersection)
    return _ratio(intersection, union)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return intersection over the area of the second box, float32 (N, M) in [0, 1]; for crowd regions."""
    intersection = pairwise_intersection(boxes1, boxes2)
    return _ratio(intersection, boxes2.area()[None, :])


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Return intersection over union of the i-th boxes of two sets of one length.

    Args:
        boxes1: N boxes.
        boxes2: N boxes.

    Returns:
        float32 (N,) in [0, 1].

    Raises:
        ValueError: the sets differ in length.
    """
    if len(boxes1) != len(boxes2):
        raise ValueError(
            f"matched_pairwise_iou takes two sets of one length, got {len(boxes1)} and {len(boxes2)} boxes"
        )
    low = torch.maximum(boxes1.tensor[:, :2], boxes2.tensor[:, :2])
    high = torch.minimum(boxes1.tensor[:, 2:], boxes2.tensor[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=1)
    return _ratio(intersection, boxes1.area() + boxes2.area() - intersection)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """Return the distances of points from the four sides of boxes; all are positive where the point lies inside.

    Args:
        points: (P, 2) as (x, y) in pixels.
        boxes: N boxes.

    Returns:
        (P, N, 4): to the left, top, right and bottom side, in pixels.
    """
    x, y = points[:, None].unbind(2)
    x0, y0, x1, y1 = boxes.tensor.unbind(1)
    return torch.stack((x - x0, y - y0, x1 - x, y1 - y), dim=2)


def _ratio(intersection: Tensor, whole: Tensor) -> Tensor:
    return torch.where(intersection > 0, intersection / whole, intersection.new_zeros(()))
