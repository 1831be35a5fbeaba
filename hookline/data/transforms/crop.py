"""Cropping and padding: the transform, and the augmentations that choose where.

Sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import CropTransform as _CropTransform
from fvcore.transforms.transform import PadTransform, Transform, TransformList

from hookline.data.transforms.augmentation import Augmentation

__all__ = ["CropTransform", "FixedSizeCrop", "RandomCrop", "RandomCrop_CategoryAreaConstraint", "clip_polygon"]


class CropTransform(_CropTransform):
    """fvcore's crop; polygons are clipped here, without needing shapely.

    Args:
        x0: left edge of the window.
        y0: top edge.
        w: width.
        h: height.
        orig_w: width of the input; needed for ``inverse``.
        orig_h: height of the input; needed for ``inverse``.
    """

    def apply_polygons(self, polygons: list[np.ndarray]) -> list[np.ndarray]:
        """Clip polygons to the window; those outside disappear.

        Args:
            polygons: float (P, 2) as (x, y) each.

        Returns:
            At most as many polygons, of any number of points.
        """
        window = (self.x0, self.y0, self.x0 + self.w, self.y0 + self.h)
        clipped = (clip_polygon(polygon, window) for polygon in polygons)
        return [self.apply_coords(polygon) for polygon in clipped if len(polygon)]


def clip_polygon(polygon: np.ndarray, window: tuple[float, float, float, float]) -> np.ndarray:
    """Clip a polygon to a window.

    A polygon that the window cuts into several parts stays one, its parts joined along the window's edge, which
    covers no area.

    Args:
        polygon: float (P, 2) as (x, y); convex or not.
        window: (x0, y0, x1, y1).

    Returns:
        float (Q, 2) in memory of its own; Q is 0 where nothing is left but a point or a line.

    Source:
        Sutherland and Hodgman, "Reentrant Polygon Clipping", Communications of the ACM 17 (1974).
    """
    points = np.array(polygon, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    for axis in (0, 1):
        if low[axis] < window[axis]:
            points = _cut(points, axis, window[axis], 1.0)
        if high[axis] > window[axis + 2]:
            points = _cut(points, axis, window[axis + 2], -1.0)
    if len(points) < 3 or np.any(np.ptp(points, axis=0) == 0):
        return np.empty((0, 2))
    return points


def _cut(points: np.ndarray, axis: int, edge: float, side: float) -> np.ndarray:
    """Keep the part of a polygon where ``side * (coordinate - edge) >= 0``."""
    if len(points) == 0:
        return points
    distance = side * (points[:, axis] - edge)
    following = np.roll(points, -1, axis=0)
    distance_after = np.roll(distance, -1)
    inside = distance >= 0
    crosses = inside != (distance_after >= 0)
    part = np.divide(distance, distance - distance_after, out=np.zeros_like(distance), where=crosses)
    meeting = points + part[:, None] * (following - points)
    meeting[:, axis] = edge
    # every point that stays is followed by the place where the line to the next one leaves or enters
    both = np.stack([points, meeting], axis=1).reshape(-1, 2)
    return both[np.stack([inside, crosses], axis=1).reshape(-1)]


class RandomCrop(Augmentation):
    """Cut out a window of a drawn size at a drawn place; windows never leave the image.

    Args:
        crop_type: how ``crop_size`` is meant:
            ``"relative"``: fractions of height and width;
            ``"relative_range"``: fractions drawn from [``crop_size``, 1], for height and width apart;
            ``"absolute"``: pixels;
            ``"absolute_range"``: height and width are drawn, each from [``crop_size[0]``, ``crop_size[1]``] pixels.
        crop_size: two numbers.

    Raises:
        ValueError: unknown ``crop_type``, or numbers that do not suit it.
    """

    TYPES = ("relative", "relative_range", "absolute", "absolute_range")

    def __init__(self, crop_type: str, crop_size: Sequence[float]) -> None:
        super().__init__()
        if crop_type not in self.TYPES:
            raise ValueError(f"crop_type {crop_type!r} is none of {', '.join(self.TYPES)}")
        first, second = crop_size
        if crop_type.startswith("relative") and not (0 < first <= 1 and 0 < second <= 1):
            raise ValueError(f"crop_size={crop_size!r}: a {crop_type} crop needs fractions above 0 and up to 1")
        if crop_type.startswith("absolute") and (min(first, second) < 1 or (crop_type[9:] and first > second)):
            raise ValueError(f"crop_size={crop_size!r} does not suit crop_type={crop_type!r}")
        self.crop_type = crop_type
        self.crop_size = (first, second)

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a window for an image (H, W[, C])."""
        height, width = image.shape[:2]
        crop_height, crop_width = self.get_crop_size((height, width))
        y0 = int(np.random.randint(height - crop_height + 1))
        x0 = int(np.random.randint(width - crop_width + 1))
        return CropTransform(x0, y0, crop_width, crop_height, width, height)

    def get_crop_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Draw (height, width) of the window for an image of ``image_size``."""
        if self.crop_type == "absolute":
            return min(int(self.crop_size[0]), image_size[0]), min(int(self.crop_size[1]), image_size[1])
        if self.crop_type == "absolute_range":
            low, high = (int(edge) for edge in self.crop_size)
            drawn = [int(np.random.randint(min(edge, low), min(edge, high) + 1)) for edge in image_size]
            return drawn[0], drawn[1]
        fraction: np.ndarray = np.asarray(self.crop_size, dtype=np.float32)
        if self.crop_type == "relative_range":
            fraction = fraction + np.random.rand(2) * (1 - fraction)
        sides = [max(int(edge * part + 0.5), 1) for edge, part in zip(image_size, fraction, strict=True)]
        return sides[0], sides[1]


class RandomCrop_CategoryAreaConstraint(Augmentation):  # Detectron2's name
    """Crop like ``RandomCrop``, trying again (ten times) while one class of the label map fills the window.

    Args:
        crop_type: see ``RandomCrop``.
        crop_size: see ``RandomCrop``.
        single_category_max_area: highest fraction of the window that one class may cover; 1 accepts every window.
        ignored_value: label that counts neither as a class nor as area, such as 255.
    """

    ATTEMPTS = 10

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_value: int | None = None,
    ) -> None:
        super().__init__()
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self.single_category_max_area = single_category_max_area
        self.ignored_value = ignored_value

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        """Draw a window for an image (H, W[, C]) with label map (H, W)."""
        window = self.crop_aug.get_transform(image)
        if self.single_category_max_area >= 1.0:
            return window
        for _ in range(self.ATTEMPTS - 1):
            if self._is_varied(window.apply_segmentation(sem_seg)):
                break
            window = self.crop_aug.get_transform(image)
        return window

    def _is_varied(self, labels: np.ndarray) -> bool:
        values, counts = np.unique(labels, return_counts=True)
        if self.ignored_value is not None:
            counts = counts[values != self.ignored_value]
        return len(counts) > 1 and counts.max() < counts.sum() * self.single_category_max_area


class FixedSizeCrop(Augmentation):
    """Crop what is larger than a size and pad what is smaller, to the right and below, so that the size is exact.

    Args:
        crop_size: (height, width).
        pad: pad smaller images; otherwise they stay smaller.
        pad_value: value of padded pixels.
        seg_pad_value: label of padded pixels.
    """

    def __init__(
        self, crop_size: tuple[int, int], pad: bool = True, pad_value: float = 128.0, seg_pad_value: int = 255
    ) -> None:
        super().__init__()
        self.crop_size = (crop_size[0], crop_size[1])
        self.pad = pad
        self.pad_value = pad_value
        self.seg_pad_value = seg_pad_value

    def get_transform(self, image: np.ndarray) -> TransformList:
        """Draw a window for an image (H, W[, C])."""
        height, width = image.shape[:2]
        slack = np.maximum(np.subtract((height, width), self.crop_size), 0)
        # one draw moves the window along the diagonal: the sides are cut in the same proportion
        y0, x0 = np.round(slack * np.random.uniform(0.0, 1.0)).astype(int).tolist()
        crop_height, crop_width = min(height, self.crop_size[0]), min(width, self.crop_size[1])
        transforms: list[Transform] = [CropTransform(x0, y0, crop_width, crop_height, width, height)]
        if self.pad:
            right, below = self.crop_size[1] - crop_width, self.crop_size[0] - crop_height
            transforms.append(
                PadTransform(0, 0, right, below, crop_width, crop_height, self.pad_value, self.seg_pad_value)
            )
        return TransformList(transforms)
