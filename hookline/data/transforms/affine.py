"""Rotation and resampled crops, on PIL's affine sampler.

PIL's sampler works in the same continuous coordinates as boxes and polygons (pixel (i, j) covers [j, j + 1] x
[i, i + 1]), so one matrix serves image and points. What lies outside the source becomes 0. Sizes are (height, width) in
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import NoOpTransform, Transform, TransformList
from PIL import Image

from hookline.data.transforms.augmentation import Augmentation
from hookline.data.transforms.crop import CropTransform

__all__ = ["ExtentTransform", "RandomExtent", "RandomRotation", "RotationTransform"]


def _warp(
    image: np.ndarray, to_source: np.ndarray, size: tuple[int, int], method: Image.Resampling, fill: float = 0
) -> np.ndarray:
    """Sample ``image`` for every pixel of a new image.

    Args:
        image: (H, W) or (H, W, C) of any number type.
        to_source: (2, 3), takes points (x, y, 1) of the new image to points of the old one.
        size: (height, width) of the new image.
        method: nearest, bilinear or bicubic.
        fill: value of what lies outside.

    Returns:
        The new image, of the same dtype.
    """
    if image.dtype != np.uint8:
        # labels go through 32-bit integers and everything else through float32: the wide types that PIL samples
        wide = np.int32 if image.dtype.kind in "bui" and method == Image.Resampling.NEAREST else np.float32
        planes = image.astype(wide)
    else:
        planes = image
    value = float(fill) if planes.dtype == np.float32 else int(fill)

    def sample(pixels: np.ndarray, colour: float | tuple[int, ...]) -> np.ndarray:
        source = Image.fromarray(np.ascontiguousarray(pixels))
        coefficients = tuple(to_source.flatten())
        return np.array(source.transform(size[::-1], Image.Transform.AFFINE, coefficients, method, fillcolor=colour))

    if planes.ndim == 2:
        result = sample(planes, value)
    elif planes.dtype == np.uint8 and planes.shape[2] == 3:
        result = sample(planes, (int(value),) * 3)
    else:
        result = np.stack([sample(planes[:, :, c], value) for c in range(planes.shape[2])], axis=2)
    if image.dtype.kind in "ui" and result.dtype.kind == "f":
        result = result.round()
    return result.astype(image.dtype, copy=False)


class RotationTransform(Transform):
    """Rotate about a point, counter-clockwise as seen on the screen.

    Args:
        h: height of the input.
        w: width of the input.
        angle: degrees.
        expand: make the output large enough for the whole turned image; otherwise it keeps the input's size.
        center: (x, y) of the point that stays, the image's centre when None; meaningless with ``expand``.
        interp: a ``PIL.Image.Resampling`` of nearest, bilinear or bicubic; bilinear when None.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: Sequence[float] | None = None,
        interp: int | None = None,
    ) -> None:
        super().__init__()
        self.h, self.w, self.angle, self.expand = h, w, angle, expand
        self.center = (w / 2, h / 2) if center is None else (center[0], center[1])
        self.interp = Image.Resampling.BILINEAR if interp is None else Image.Resampling(interp)
        # rounded so that right angles are exact, and a turned image does not grow by a pixel
        cosine, sine = np.round(np.cos(np.deg2rad(angle)), 15), np.round(np.sin(np.deg2rad(angle)), 15)
        self.bound_w, self.bound_h = w, h
        if expand:
            self.bound_w = int(np.rint(h * abs(sine) + w * abs(cosine)))
            self.bound_h = int(np.rint(h * abs(cosine) + w * abs(sine)))
        turn = np.array([[cosine, sine], [-sine, cosine]])
        target = (self.bound_w / 2, self.bound_h / 2) if expand else self.center
        source = (w / 2, h / 2) if expand else self.center
        self._matrix = np.column_stack([turn, target - turn @ source])
        self._to_source = np.column_stack([turn.T, source - turn.T @ target])

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Rotate an image (H, W[, C]) of the size given to the constructor.

        Raises:
            ValueError: it has another size.
        """
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(
                f"this RotationTransform is for {(self.h, self.w)} pixels, but the image has {img.shape[:2]}"
            )
        if self._is_identity() or img.size == 0:
            return img
        method = self.interp if interp is None else Image.Resampling(interp)
        return _warp(img, self._to_source, (self.bound_h, self.bound_w), method)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Rotate points, floating point (P, 2) as (x, y)."""
        coords = np.asarray(coords, dtype=float)
        if len(coords) == 0 or self._is_identity():
            return coords
        return coords @ self._matrix[:, :2].T + self._matrix[:, 2]

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Rotate a label map or mask, taking the nearest value."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)

    def inverse(self) -> Transform:
        """Return the rotation back, which with ``expand`` ends in a crop to the old size.

        Raises:
            NotImplementedError: pixels that the rotation threw away cannot come back.
        """
        if not self.expand:
            raise NotImplementedError("a RotationTransform without expand loses corners and has no inverse")
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, True, None, self.interp)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        # the sizes were rounded on both ways; taking back half a pixel keeps the points exact
        shift = (back.bound_w - self.w) / 2 - x0, (back.bound_h - self.h) / 2 - y0
        back._matrix[:, 2] -= shift
        back._to_source[:, 2] += back._to_source[:, :2] @ np.array(shift)
        return TransformList([back, CropTransform(x0, y0, self.w, self.h, back.bound_w, back.bound_h)])

    def _is_identity(self) -> bool:
        return self.angle % 360 == 0


class ExtentTransform(Transform):
    """Cut out a rectangle and resample it to a size.

    Args:
        src_rect: (x0, y0, x1, y1) in the input, which it may leave; x1 < x0 mirrors.
        output_size: (height, width).
        interp: a ``PIL.Image.Resampling`` of nearest, bilinear or bicubic.
        fill: value of what lies outside the input.
    """

    def __init__(
        self,
        src_rect: Sequence[float],
        output_size: tuple[int, int],
        interp: int = Image.Resampling.BILINEAR,
        fill: float = 0,
    ) -> None:
        super().__init__()
        self.src_rect = tuple(src_rect)
        self.output_size = output_size
        self.interp = Image.Resampling(interp)
        self.fill = fill

    def _scale(self) -> np.ndarray:
        """Return how many input pixels an output pixel is wide and high."""
        x0, y0, x1, y1 = self.src_rect
        height, width = self.output_size
        return np.array([(x1 - x0) / width, (y1 - y0) / height])

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Cut out of an image (H, W[, C])."""
        to_source = np.column_stack([np.diag(self._scale()), self.src_rect[:2]])
        method = self.interp if interp is None else Image.Resampling(interp)
        return _warp(img, to_source, self.output_size, method, self.fill)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Move points, floating point (P, 2) as (x, y)."""
        return (coords - np.array(self.src_rect[:2])) / self._scale()

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Cut out of a label map or mask, taking the nearest value."""
        return self.apply_image(segmentation, interp=Image.Resampling.NEAREST)


class RandomRotation(Augmentation):
    """Rotate by a drawn angle.

    Args:
        angle: (lowest, highest) in degrees for ``"range"``, or the angles to choose from; one number is always used.
        expand: see :class:`RotationTransform`.
        center: where to turn, relative to the image's (width, height): for ``"range"`` a pair of corners
            [[x0, y0], [x1, y1]] to draw from, otherwise the points to choose from. The image's centre when None.
        sample_style: ``"range"`` or ``"choice"``.
        interp: a ``PIL.Image.Resampling``.

    Raises:
        ValueError: unknown ``sample_style``.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Sequence[float]] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        super().__init__()
        if sample_style not in ("range", "choice"):
            raise ValueError(f"sample_style must be 'range' or 'choice', got {sample_style!r}")
        self.angle = (angle, angle) if isinstance(angle, (int, float)) else tuple(angle)
        self.expand = expand
        self.center: Any = [center, center] if center is not None and isinstance(center[0], (int, float)) else center
        self.sample_style = sample_style
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw angle and centre for an image (H, W[, C])."""
        height, width = image.shape[:2]
        angle, center = self._draw_range() if self.sample_style == "range" else self._draw_choice()
        if angle % 360 == 0:
            return NoOpTransform()
        at = None if center is None else (width * center[0], height * center[1])
        return RotationTransform(height, width, angle, self.expand, at, self.interp)

    def _draw_range(self) -> tuple[float, Sequence[float] | None]:
        angle = np.random.uniform(self.angle[0], self.angle[1])
        if self.center is None:
            return angle, None
        low, high = self.center[0], self.center[1]
        return angle, (np.random.uniform(low[0], high[0]), np.random.uniform(low[1], high[1]))

    def _draw_choice(self) -> tuple[float, Sequence[float] | None]:
        angle = float(np.random.choice(self.angle))
        return angle, None if self.center is None else self.center[np.random.choice(len(self.center))]


class RandomExtent(Augmentation):
    """Cut out a rectangle of drawn size and place, which may stick out of the image; what lies outside becomes 0.

    Args:
        scale_range: (lowest, highest) size relative to the image's.
        shift_range: how far (x, y) the rectangle's centre may move, relative to the image's size: 0.2 means by up to a
            tenth to either side.
    """

    def __init__(self, scale_range: tuple[float, float], shift_range: tuple[float, float]) -> None:
        super().__init__()
        self.scale_range = scale_range
        self.shift_range = shift_range

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a rectangle for an image (H, W[, C])."""
        height, width = image.shape[:2]
        size = np.random.uniform(*self.scale_range) * np.array([width, height])
        # the scale is drawn first, then x, then y
        shift = [extent * self.shift_range[i] * (np.random.rand() - 0.5) for i, extent in enumerate((width, height))]
        corner = np.array([width, height]) / 2 + shift - size / 2
        output = int(np.rint(size[1])), int(np.rint(size[0]))
        return ExtentTransform((*corner, *(corner + size)), output)
