"""Polygons to pixels.

Axes: N instances, each of several polygons [x0, y0, x1, y1, ...] in pixels; S the side of a square target.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hookline.structures.rle import decode_rles, encode_polygons


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Rasterise the union of polygons.

    Args:
        polygons: flat coordinates in pixels.
        height: of the mask in pixels.
        width: of the mask in pixels.

    Returns:
        Bool array (height, width); all False for no polygons.
    """
    return rasterize_polygons([polygons], height, width)[0].numpy()


def rasterize_polygons(instances: Sequence[Sequence[np.ndarray]], height: int, width: int) -> Tensor:
    """Rasterise the polygons of many instances at once.

    Args:
        instances: the polygons of each instance.
        height: of the masks in pixels.
        width: of the masks in pixels.

    Returns:
        Bool tensor (N, height, width), in memory as (N, W, H), which is cheap to encode.
    """
    if not instances:
        return torch.zeros(0, height, width, dtype=torch.bool)
    return decode_rles(encode_polygons(instances, height, width))


def rasterize_polygons_within_box(polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int) -> Tensor:
    """Rasterise one instance inside a box; see ``rasterize_polygons_within_boxes``.

    Args:
        polygons: flat coordinates in pixels of the image.
        box: (4,) as (x0, y0, x1, y1) in pixels of the image.
        mask_size: side S of the target.

    Returns:
        Bool tensor (S, S).
    """
    return rasterize_polygons_within_boxes([polygons], np.asarray(box)[None], mask_size)[0]


def rasterize_polygons_within_boxes(
    instances: Sequence[Sequence[np.ndarray]], boxes: np.ndarray, mask_size: int
) -> Tensor:
    """Rasterise each instance inside its own box: the target of a mask head.

    The polygons are moved and stretched so that the box becomes the square [0, S] x [0, S], and then drawn; no
    full-size mask is ever made. All instances share one call of the rasteriser.

    Args:
        instances: the polygons of each of N instances, in pixels of the image.
        boxes: (N, 4) as (x0, y0, x1, y1) in pixels of the image.
        mask_size: side S of the target.

    Returns:
        Bool tensor (N, S, S).

    Source:
        He et al., Mask R-CNN, 2017, section 3: the target is the intersection of the region with the ground truth mask.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    # a degenerate box is taken as a tenth of a pixel wide
    scale = mask_size / np.maximum(boxes[:, 2:] - boxes[:, :2], 0.1)
    moved = [
        [((polygon.reshape(-1, 2) - origin) * factor).reshape(-1) for polygon in polygons]
        for polygons, origin, factor in zip(instances, boxes[:, :2], scale, strict=True)
    ]
    return rasterize_polygons(moved, mask_size, mask_size).contiguous()
