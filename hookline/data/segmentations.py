"""The segmentations of one image: from what data sets hold, through geometry, to masks.

A segmentation is a list of polygons, a run-length code (RLE), or a bitmap. Polygons stay polygons; codes become bitmaps
where they must be moved. Axes: N annotations, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform

from hookline.data.errors import BadSampleError
from hookline.data.polygons import PolygonTable
from hookline.structures import BitMasks, PolygonMasks, decode_rles, rasterize_polygons

__all__ = ["MASK_FORMATS", "Segmentations"]

MASK_FORMATS = ("polygon", "bitmask")


class Segmentations:
    """The segmentations of N annotations: a table of polygons, and bitmaps for the others.

    Attributes:
        polygons: those of the annotations in ``polygon_rows``, in order.
        polygon_rows: which of the N annotations have polygons, ascending.
        bitmaps: bool or uint8 (H, W) by row, for the rest.
    """

    def __init__(self, polygons: PolygonTable, polygon_rows: list[int], bitmaps: dict[int, np.ndarray]) -> None:
        self.polygons = polygons
        self.polygon_rows = polygon_rows
        self.bitmaps = bitmaps

    @classmethod
    def from_annotations(
        cls,
        annotations: Sequence[Mapping[str, Any]],
        image_size: tuple[int, int] | None = None,
        *,
        allow_empty: bool = False,
    ) -> Segmentations:
        """Read the field ``segmentation`` of annotations.

        Args:
            annotations: in Detectron2's standard form.
            image_size: (height, width) that codes and bitmaps must have, where known.
            allow_empty: take annotations whose list of polygons is empty.

        Raises:
            BadSampleError: an annotation has no segmentation, or one that cannot be read.
        """
        rows: list[int] = []
        bitmaps: dict[int, np.ndarray] = {}
        for row, annotation in enumerate(annotations):
            if isinstance(annotation.get("segmentation"), (list, tuple)):
                rows.append(row)
            else:
                bitmaps[row] = _bitmap(annotation.get("segmentation"), image_size, annotation_name(annotation, row))
        polygons = PolygonTable.from_lists(
            [annotations[row]["segmentation"] for row in rows],
            [annotation_name(annotations[row], row) for row in rows],
            allow_empty=allow_empty,
        )
        return cls(polygons, rows, bitmaps)

    def __len__(self) -> int:
        """Return the number of annotations."""
        return len(self.polygon_rows) + len(self.bitmaps)

    def transformed(self, transforms: Transform) -> Segmentations:
        """Return the segmentations after ``transforms``."""
        bitmaps = {row: transforms.apply_segmentation(bitmap) for row, bitmap in self.bitmaps.items()}
        return Segmentations(self.polygons.transformed(transforms), self.polygon_rows, bitmaps)

    def to_masks(self, image_size: tuple[int, int], mask_format: str = "polygon") -> PolygonMasks | BitMasks:
        """Return what a sample carries.

        Args:
            image_size: (height, width) of the image now.
            mask_format: ``"polygon"`` keeps polygons where all annotations have them; ``"bitmask"`` draws them.

        Raises:
            ValueError: unknown ``mask_format``.
        """
        if mask_format not in MASK_FORMATS:
            raise ValueError(f"mask format {mask_format!r} is none of {', '.join(MASK_FORMATS)}")
        polygons = self.polygons.to_lists()
        if mask_format == "polygon" and not self.bitmaps:
            return PolygonMasks(polygons)
        drawn = rasterize_polygons(polygons, *image_size)
        if not self.bitmaps:
            return BitMasks(drawn)
        masks = torch.empty(len(self), *image_size, dtype=torch.bool)
        masks[self.polygon_rows] = drawn
        for row, bitmap in self.bitmaps.items():
            masks[row] = torch.from_numpy(np.ascontiguousarray(bitmap, dtype=bool))
        return BitMasks(masks)


def annotation_name(annotation: Mapping[str, Any], position: int) -> Any:
    """Return what errors call an annotation: its ``id``, or its place in the record."""
    return annotation.get("id", f"at position {position}")


def _bitmap(segmentation: Any, image_size: tuple[int, int] | None, name: Any) -> np.ndarray:
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        bitmap = segmentation
    elif isinstance(segmentation, Mapping) and {"size", "counts"} <= set(segmentation):
        bitmap = _decode(segmentation, name)
    elif segmentation is None:
        raise BadSampleError("it has no segmentation, but masks were asked for", annotation_id=name)
    else:
        raise BadSampleError(
            "its segmentation is neither a list of polygons, nor an RLE (size, counts), nor a bitmap (H, W), "
            f"but a {type(segmentation).__name__}",
            annotation_id=name,
        )
    if image_size is not None and bitmap.shape != tuple(image_size):
        raise BadSampleError(
            f"its mask has {bitmap.shape} pixels (height, width), but the image has {tuple(image_size)}",
            annotation_id=name,
        )
    return bitmap


def _decode(code: Mapping[str, Any], name: Any) -> np.ndarray:
    """Decode an RLE.

    Raises:
        BadSampleError: it is damaged.
    """
    try:
        return decode_rles([dict(code)])[0].numpy()
    except Exception as error:  # the codecs raise whatever their language has for it
        raise BadSampleError(f"its RLE cannot be decoded: {error}", annotation_id=name) from error
