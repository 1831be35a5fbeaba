"""The polygons of all objects of an image in one array, so that geometry is one numpy call and not one per polygon.

Axes: N annotations, Q polygons, P points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList

from hookline.data.errors import BadSampleError

__all__ = ["PolygonTable"]


class PolygonTable:
    """Polygons of N annotations.

    Attributes:
        points: float64 (P, 2) as (x, y): all points of all polygons in order.
        lengths: number of points of each of the Q polygons.
        counts: number of polygons of each of the N annotations.
    """

    def __init__(self, points: np.ndarray, lengths: list[int], counts: list[int]) -> None:
        self.points = points
        self.lengths = lengths
        self.counts = counts

    @classmethod
    def from_lists(
        cls, instances: Sequence[Sequence[Any]], ids: Sequence[Any], *, allow_empty: bool = False
    ) -> PolygonTable:
        """Collect polygons as data sets hold them.

        Args:
            instances: per annotation its polygons, each flat [x0, y0, x1, y1, ...] or (P, 2).
            ids: per annotation what errors call it.
            allow_empty: take annotations without polygons, such as a crop leaves.

        Raises:
            BadSampleError: an annotation has no polygon, or one of them an odd number of coordinates, fewer than three
                points, or a coordinate that is no number.
        """
        arrays: list[np.ndarray] = []
        for polygons, name in zip(instances, ids, strict=True):
            if not len(polygons) and not allow_empty:
                raise BadSampleError("its segmentation has no polygon", annotation_id=name)
            for index, polygon in enumerate(polygons):
                arrays.append(_flat_array(polygon, index, name))
        flat = np.concatenate(arrays) if arrays else np.empty(0)
        table = cls(flat.reshape(-1, 2), [len(a) // 2 for a in arrays], [len(polygons) for polygons in instances])
        if not np.isfinite(flat).all():
            broken = next(index for index, array in enumerate(arrays) if not np.isfinite(array).all())
            name = [name for name, count in zip(ids, table.counts, strict=True) for _ in range(count)][broken]
            raise BadSampleError("a polygon has a coordinate that is no finite number", annotation_id=name)
        return table

    def __len__(self) -> int:
        """Return the number of annotations."""
        return len(self.counts)

    def to_lists(self) -> list[list[np.ndarray]]:
        """Return per annotation a list of flat float64 polygons [x0, y0, x1, y1, ...]: views of the points."""
        flat = self.points.reshape(-1)
        polygons = (flat[2 * start : 2 * (start + n)] for start, n in zip(self._starts(), self.lengths, strict=True))
        return _take(polygons, self.counts)

    def per_annotation(self, ufunc: np.ufunc, values: np.ndarray) -> np.ndarray:
        """Reduce values of points to values of annotations.

        Args:
            ufunc: such as ``np.minimum``.
            values: (P, ...); every annotation must have at least one point.

        Returns:
            (N, ...)
        """
        starts = np.array(self._starts(), dtype=np.int64)
        first_polygons = np.cumsum([0, *self.counts[:-1]]) if self.counts else np.empty(0, dtype=np.int64)
        return ufunc.reduceat(values, starts[first_polygons], axis=0)

    def areas(self) -> np.ndarray:
        """Return per annotation the sum of the areas of its polygons, float64 (N,) in square pixels."""
        starts = np.array(self._starts(), dtype=np.int64)
        following = np.arange(1, len(self.points) + 1)
        following[starts + np.array(self.lengths) - 1] = starts
        x, y = self.points[:, 0], self.points[:, 1]
        polygon_areas = np.abs(np.add.reduceat(x * y[following] - x[following] * y, starts)) / 2
        return np.add.reduceat(polygon_areas, np.cumsum([0, *self.counts[:-1]]))

    def transformed(self, transforms: Transform) -> PolygonTable:
        """Return the polygons after ``transforms``; an annotation may lose all its polygons, but stays in the table."""
        steps = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
        table = PolygonTable(self.points.copy(), self.lengths, self.counts)
        for pointwise, group in itertools.groupby(steps, _is_pointwise):
            for step in group:
                if pointwise:
                    table.points = step.apply_coords(table.points)
                else:
                    table = table._by_annotation(step)
        return table

    def _by_annotation(self, step: Transform) -> PolygonTable:
        """Apply a transform that looks at whole polygons."""
        shaped = [[polygon.reshape(-1, 2) for polygon in polygons] for polygons in self.to_lists()]
        instances = [[np.asarray(p, dtype=np.float64) for p in step.apply_polygons(polygons)] for polygons in shaped]
        arrays = list(itertools.chain.from_iterable(instances))
        points = np.concatenate(arrays) if arrays else np.empty((0, 2))
        return PolygonTable(points, [len(a) for a in arrays], [len(polygons) for polygons in instances])

    def _starts(self) -> list[int]:
        return list(itertools.accumulate(self.lengths, initial=0))[:-1]


def _is_pointwise(step: Transform) -> bool:
    """Tell whether a transform moves the points of polygons one by one, so that all can go in one call."""
    return type(step).apply_polygons is Transform.apply_polygons


def _flat_array(polygon: Any, index: int, name: Any) -> np.ndarray:
    try:
        array = np.asarray(polygon, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"polygon {index} is no list of numbers: {error}", annotation_id=name) from error
    if len(array) % 2:
        raise BadSampleError(f"polygon {index} has an odd number of coordinates: {len(array)}", annotation_id=name)
    if len(array) < 6:
        raise BadSampleError(f"polygon {index} has {len(array) // 2} points, needs at least 3", annotation_id=name)
    return array


def _take(items: Iterator[np.ndarray], counts: list[int]) -> list[list[np.ndarray]]:
    return [list(itertools.islice(items, count)) for count in counts]
