"""Resizing: the transform, and the augmentations that choose a size.

uint8 images are resized by torch's native antialiased kernels: PIL's algorithm in a seventh of its time. The weights
are rounded to 16 bits instead of PIL's 22, so fewer than one value in a hundred differs from PIL's, by one grey level.

Sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from hookline.data.transforms.arrays import image_to_tensor
from hookline.data.transforms.augmentation import Augmentation

__all__ = ["RandomResize", "Resize", "ResizeScale", "ResizeShortestEdge", "ResizeTransform"]

_TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}


class ResizeTransform(Transform):
    """Resize to a fixed size.

    Args:
        h: height of the input.
        w: width of the input.
        new_h: height of the output.
        new_w: width of the output.
        interp: a ``PIL.Image.Resampling``; bilinear when None. Label maps are always resized to the nearest.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        super().__init__()
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w
        self.interp = Image.Resampling.BILINEAR if interp is None else Image.Resampling(interp)

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """Resize an image.

        Args:
            img: (H, W) or (H, W, C) of the size given to the constructor; uint8 or floating point.
            interp: instead of the constructor's.

        Returns:
            The image of the new size and the same dtype.

        Raises:
            ValueError: ``img`` has another size.
        """
        self._check_size(img)
        if img.shape[:2] == (self.new_h, self.new_w):
            return img
        method = self.interp if interp is None else Image.Resampling(interp)
        if method == Image.Resampling.NEAREST:
            return self.apply_segmentation(img)
        if img.dtype == np.uint8 and method not in _TORCH_MODES:
            return _resize_with_pil(img, (self.new_h, self.new_w), method)
        return _resize_with_torch(img, (self.new_h, self.new_w), _TORCH_MODES.get(method, "bilinear"))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Scale the points.

        Args:
            coords: floating point (P, 2) as (x, y); changed in place.
        """
        coords[:, 0] *= self.new_w * 1.0 / self.w
        coords[:, 1] *= self.new_h * 1.0 / self.h
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Resize a label map or mask of any dtype: every output pixel takes the value under its centre.

        Args:
            segmentation: (H, W) or (H, W, C).

        Raises:
            ValueError: it has another size than the constructor was given.
        """
        self._check_size(segmentation)
        rows = _nearest(self.h, self.new_h)
        columns = _nearest(self.w, self.new_w)
        return segmentation.take(rows, axis=0).take(columns, axis=1)

    def inverse(self) -> ResizeTransform:
        """Return the transform back to the old size."""
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)

    def _check_size(self, image: np.ndarray) -> None:
        if image.shape[:2] != (self.h, self.w):
            raise ValueError(
                f"this ResizeTransform is for {(self.h, self.w)} pixels, but the image has {image.shape[:2]}"
            )


def _nearest(old: int, new: int) -> np.ndarray:
    """Return for each of ``new`` positions the index of the old one under its centre."""
    return ((np.arange(new) * 2 + 1) * old) // (2 * new)


def _resize_with_torch(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize (H, W, C) or (H, W); integers other than uint8 are rounded, floating point keeps its dtype."""
    reverse_channels = image.ndim == 3 and image.strides[2] < 0
    if reverse_channels:
        image = image[:, :, ::-1]
    tensor = image_to_tensor(image if image.ndim == 3 else image[:, :, np.newaxis])[None].permute(0, 3, 1, 2)
    native = tensor.dtype == torch.uint8 or tensor.is_floating_point()
    if not native:
        tensor = tensor.to(torch.float64)
    # in this layout the kernel works on whole pixels, and its result is again an (H, W, C) array without a copy
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    resized = torch.nn.functional.interpolate(tensor, size=size, mode=mode, align_corners=False, antialias=True)
    result = resized[0].permute(1, 2, 0).numpy()
    if not native:
        limits = np.iinfo(image.dtype)
        result = result.round().clip(limits.min, limits.max).astype(image.dtype)
    if image.ndim == 2:
        return result[:, :, 0]
    return result[:, :, ::-1] if reverse_channels else result


def _resize_with_pil(image: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    """Resize uint8 by one of the methods that only PIL has (Lanczos, box, Hamming), channel by channel."""
    planes = image[:, :, np.newaxis] if image.ndim == 2 else image
    resized = [
        np.array(Image.fromarray(np.ascontiguousarray(planes[:, :, c])).resize(size[::-1], method))
        for c in range(planes.shape[2])
    ]
    return resized[0] if image.ndim == 2 else np.stack(resized, axis=2)


class Resize(Augmentation):
    """Resize to a fixed size, whatever the image's.

    Args:
        shape: (height, width), or one number for both.
        interp: a ``PIL.Image.Resampling``.
    """

    def __init__(self, shape: int | Sequence[int], interp: int = Image.Resampling.BILINEAR) -> None:
        super().__init__()
        self.shape = (shape, shape) if isinstance(shape, int) else (shape[0], shape[1])
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Return the resizing for an image (H, W[, C])."""
        height, width = image.shape[:2]
        return ResizeTransform(height, width, *self.shape, self.interp)


class RandomResize(Augmentation):
    """Resize to one of several sizes.

    Args:
        shape_list: (height, width) each.
        interp: a ``PIL.Image.Resampling``.
    """

    def __init__(self, shape_list: Sequence[tuple[int, int]], interp: int = Image.Resampling.BILINEAR) -> None:
        super().__init__()
        self.shape_list = list(shape_list)
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a size for an image (H, W[, C])."""
        new_height, new_width = self.shape_list[np.random.choice(len(self.shape_list))]
        return ResizeTransform(image.shape[0], image.shape[1], new_height, new_width, self.interp)


class ResizeShortestEdge(Augmentation):
    """Resize so that the shorter edge gets a drawn length and the longer one stays within a limit, keeping the aspect.

    Args:
        short_edge_length: one length in pixels, the lengths to choose from, or (lowest, highest) for ``"range"``.
            A drawn length of 0 leaves the image as it is.
        max_size: limit of the longer edge in pixels; it wins over ``short_edge_length``.
        sample_style: ``"choice"`` or ``"range"`` (both ends included).
        interp: a ``PIL.Image.Resampling``.

    Raises:
        ValueError: unknown ``sample_style``, or a range that is not two ascending numbers.
    """

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = 2**63 - 1,
        sample_style: str = "range",
        interp: int = Image.Resampling.BILINEAR,
    ) -> None:
        super().__init__()
        lengths = (short_edge_length,) * 2 if isinstance(short_edge_length, int) else tuple(short_edge_length)
        if sample_style not in ("range", "choice"):
            raise ValueError(f"sample_style must be 'range' or 'choice', got {sample_style!r}")
        if not lengths or (sample_style == "range" and (len(lengths) != 2 or lengths[0] > lengths[1])):
            raise ValueError(f"short_edge_length={short_edge_length!r} does not suit sample_style={sample_style!r}")
        self.short_edge_length = lengths
        self.max_size = max_size
        self.sample_style = sample_style
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a length for an image (H, W[, C])."""
        if self.sample_style == "range":
            length = int(np.random.randint(self.short_edge_length[0], self.short_edge_length[1] + 1))
        else:
            length = int(np.random.choice(self.short_edge_length))
        if length == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        return ResizeTransform(height, width, *self.get_output_shape(height, width, length, self.max_size), self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """Return (height, width) after resizing (``oldh``, ``oldw``); see the class."""
        scale = short_edge_length * 1.0 / min(oldh, oldw)
        # the shorter edge is set, not multiplied, so that it is met exactly
        new = [short_edge_length * 1.0, scale * oldw] if oldh < oldw else [scale * oldh, short_edge_length * 1.0]
        if max(new) > max_size:
            shrink = max_size * 1.0 / max(new)
            new = [edge * shrink for edge in new]
        return int(new[0] + 0.5), int(new[1] + 0.5)


class ResizeScale(Augmentation):
    """Large-scale jitter: fit the image into a target size times a drawn scale, keeping the aspect.

    Usually followed by ``FixedSizeCrop(target size)``.

    Args:
        min_scale: lowest scale.
        max_scale: highest scale.
        target_height: height of the target in pixels.
        target_width: width of the target in pixels.
        interp: a ``PIL.Image.Resampling``.

    Source:
        Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", section 3.
    """

    def __init__(
        self,
        min_scale: float,
        max_scale: float,
        target_height: int,
        target_width: int,
        interp: int = Image.Resampling.BILINEAR,
    ) -> None:
        super().__init__()
        self.min_scale, self.max_scale = min_scale, max_scale
        self.target_height, self.target_width = target_height, target_width
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a scale for an image (H, W[, C])."""
        scale = np.random.uniform(self.min_scale, self.max_scale)
        old = np.array(image.shape[:2])
        target = np.multiply((self.target_height, self.target_width), scale)
        new = np.round(old * np.minimum(*(target / old))).astype(int)
        new_height, new_width = max(int(new[0]), 1), max(int(new[1]), 1)
        return ResizeTransform(image.shape[0], image.shape[1], new_height, new_width, self.interp)
