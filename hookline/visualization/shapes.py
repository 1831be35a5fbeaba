"""The many forms in which boxes, masks and keypoints come, brought to one form for drawing.

Axes: N objects, K keypoints, P points, H W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hookline.structures import compress_rle, decode_rles

__all__ = ["Shape", "boxes_of", "keypoints_of", "shape_area", "shape_bounds", "shapes_of"]

Shape = list[npt.NDArray[np.float64]] | npt.NDArray[np.bool_]
"""One object's outline: polygons of (P, 2) points, or a bitmap (H, W)."""


def boxes_of(boxes: Any) -> npt.NDArray[np.float64]:
    """Return absolute XYXY boxes (N, 4).

    Args:
        boxes: ``Boxes``, a tensor, an array or nested lists.

    Raises:
        ValueError: if it is not N boxes of four numbers.
    """
    array = _array(getattr(boxes, "tensor", boxes)).astype(np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes are (N, 4) in absolute XYXY, got shape {array.shape}")
    return array


def keypoints_of(keypoints: Any) -> npt.NDArray[np.float64]:
    """Return keypoints (N, K, 3) as x, y, visibility or score.

    Args:
        keypoints: ``Keypoints``, a tensor, an array or nested lists.

    Raises:
        ValueError: if it has another shape.
    """
    array = _array(getattr(keypoints, "tensor", keypoints)).astype(np.float64)
    array = array.reshape(0, 0, 3) if array.size == 0 else array
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"keypoints are (N, K, 3) of x, y, visibility, got shape {array.shape}")
    return array


def shapes_of(masks: Any, image_size: tuple[int, int]) -> list[Shape]:
    """Return one :data:`Shape` per object.

    Args:
        masks: ``PolygonMasks``, ``BitMasks``, a tensor or array (N, H, W), or a sequence with, per object, polygons in
            COCO's flat form, a run-length dict (compressed or not), or an array (H, W).
        image_size: (height, width) that a bitmap must have.

    Raises:
        ValueError: if a mask is in none of these forms or has another size than the image.
    """
    masks = getattr(masks, "polygons", getattr(masks, "tensor", masks))
    if isinstance(masks, torch.Tensor | np.ndarray) and masks.ndim not in (3, 0) and len(masks):
        raise ValueError(f"masks are (N, H, W), got shape {tuple(masks.shape)}")
    return [_shape(mask, image_size) for mask in masks]


def shape_area(shape: Shape) -> float:
    """Return the area in square pixels (of polygons: the sum, by the shoelace formula)."""
    if isinstance(shape, np.ndarray):
        return float(shape.sum())
    return float(sum(abs(_cross(p, np.roll(p, -1, 0)).sum()) / 2 for p in shape))


def shape_bounds(shape: Shape) -> npt.NDArray[np.float64]:
    """Return the XYXY box (4,) around a shape; zeros if it is empty."""
    if isinstance(shape, np.ndarray):
        rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
        if len(rows) == 0:
            return np.zeros(4)
        return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
    if not shape:
        return np.zeros(4)
    points = np.concatenate(shape)
    return np.concatenate([points.min(0), points.max(0)])


def _shape(mask: Any, image_size: tuple[int, int]) -> Shape:
    if isinstance(mask, dict):
        bitmap = decode_rles([compress_rle(mask)])[0].numpy().astype(bool)
    elif isinstance(mask, torch.Tensor | np.ndarray) and mask.ndim == 2:
        bitmap = _array(mask).astype(bool)
    elif isinstance(mask, Sequence) and all(np.ndim(polygon) == 1 and len(polygon) % 2 == 0 for polygon in mask):
        polygons = [_array(polygon).astype(np.float64).reshape(-1, 2) for polygon in mask]
        return [polygon for polygon in polygons if len(polygon) >= 2]
    else:
        raise ValueError(f"a mask is a list of flat polygons, a run-length dict or a bitmap (H, W), got {type(mask)}")
    if bitmap.shape != tuple(image_size):
        raise ValueError(f"the mask is {bitmap.shape[0]}x{bitmap.shape[1]}, the image {image_size[0]}x{image_size[1]}")
    return bitmap


def _array(values: Any) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _cross(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
