"""Instance masks as polygons: small, exact under geometry, rasterised only where a model looks.

Axes: N instances, S the side of a mask head's target.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookline.structures.boxes import Boxes
from hookline.structures.rasterize import rasterize_polygons_within_boxes


class PolygonMasks:
    """The polygons of N instances.

    Args:
        polygons: per instance a list of polygons, each a flat sequence [x0, y0, x1, y1, ...] of at least three points
            in pixels, an even number of coordinates. The mask of an instance is the union of its polygons.

    Attributes:
        polygons: the same as float64 arrays.

    Raises:
        TypeError: not a list of lists of polygons.
    """

    def __init__(self, polygons: Sequence[Sequence[Any]]) -> None:
        if not isinstance(polygons, (list, tuple)):
            raise TypeError(f"PolygonMasks takes a list with one list of polygons per instance, got {type(polygons)}")
        self.polygons: list[list[np.ndarray]] = [_to_arrays(instance, index) for index, instance in enumerate(polygons)]

    @classmethod
    def _of(cls, polygons: list[list[np.ndarray]]) -> PolygonMasks:
        """Wrap polygons that were checked before."""
        masks = cls.__new__(cls)
        masks.polygons = polygons
        return masks

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Return the masks themselves: polygons stay on the CPU."""
        return self

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight boxes around the polygons; (0, 0, 0, 0) for an instance without polygons."""
        boxes = np.zeros((len(self.polygons), 4), dtype=np.float32)
        for box, polygons in zip(boxes, self.polygons, strict=True):
            if polygons:
                points = np.concatenate(polygons).reshape(-1, 2)
                box[:2], box[2:] = points.min(axis=0), points.max(axis=0)
        return Boxes(torch.from_numpy(boxes))

    def nonempty(self) -> Tensor:
        """Return a bool tensor (N,): True for instances with at least one polygon."""
        return torch.tensor([bool(polygons) for polygons in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """Return the areas, float32 (N,) in square pixels; where an instance's polygons overlap, that counts twice."""
        areas = [sum(_polygon_area(polygon) for polygon in polygons) for polygons in self.polygons]
        return torch.tensor(areas, dtype=torch.float32)

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Rasterise each instance inside its box, as a mask head is trained on.

        Args:
            boxes: (N, 4) in absolute XYXY pixels, one per instance, on any device.
            mask_size: side S of the target.

        Returns:
            Bool tensor (N, S, S) on the device of ``boxes``.

        Raises:
            ValueError: there is not one box per instance.
        """
        if len(boxes) != len(self):
            raise ValueError(f"crop_and_resize takes one box per instance: {len(boxes)} boxes, {len(self)} instances")
        masks = rasterize_polygons_within_boxes(self.polygons, boxes.detach().cpu().numpy(), mask_size)
        return masks.to(boxes.device)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """Join the masks of several sets in order."""
        return PolygonMasks._of(list(itertools.chain.from_iterable(one.polygons for one in polymasks_list)))

    def __getitem__(self, item: int | slice | list[int] | Tensor | np.ndarray) -> PolygonMasks:
        if isinstance(item, int):
            return self._of([self.polygons[item]])
        if isinstance(item, slice):
            return self._of(self.polygons[item])
        indices = torch.as_tensor(item)
        if indices.dtype == torch.bool:
            if indices.shape != (len(self),):
                raise IndexError(f"a mask of shape {tuple(indices.shape)} for {len(self)} instances")
            indices = indices.nonzero()[:, 0]
        return self._of([self.polygons[i] for i in indices.tolist()])

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """Yield the polygons of one instance after the other."""
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _to_arrays(instance: Any, index: int) -> list[np.ndarray]:
    if not isinstance(instance, (list, tuple)):
        raise TypeError(f"instance {index}: expected a list of polygons, got {type(instance).__name__}")
    arrays = [np.asarray(polygon, dtype=np.float64) for polygon in instance]
    for array in arrays:
        if array.ndim != 1 or len(array) < 6 or len(array) % 2:
            raise ValueError(
                f"instance {index}: a polygon is a flat sequence of at least 6 coordinates, an even number; "
                f"got shape {array.shape}"
            )
    return arrays


def _polygon_area(polygon: np.ndarray) -> float:
    """Area by the shoelace formula, in square pixels."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
