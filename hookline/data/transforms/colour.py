"""Changes of colour: geometry stays.

Channels are taken as RGB where they differ (saturation, lighting); give ``read_image`` and the model the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from fvcore.transforms.transform import BlendTransform as _BlendTransform
from fvcore.transforms.transform import NoOpTransform, Transform
from PIL import Image

from hookline.data.transforms.arrays import image_to_tensor
from hookline.data.transforms.augmentation import Augmentation

__all__ = [
    "BlendTransform",
    "ColorTransform",
    "PILColorTransform",
    "RandomBrightness",
    "RandomContrast",
    "RandomLighting",
    "RandomSaturation",
]

_LUMA = (0.299, 0.587, 0.114)
# principal components of the colours of ImageNet, RGB in [0, 1] (Krizhevsky et al. 2012, section 4.1)
_COLOUR_DIRECTIONS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_COLOUR_SPREADS = np.array([0.2175, 0.0188, 0.0045])


class BlendTransform(_BlendTransform):
    """fvcore's ``src_weight * src_image + dst_weight * image``; uint8 goes by tables or float32, which is much faster.

    A value may come out one level apart from fvcore's where the sum hits a whole number, as both cut to whole numbers.

    Args:
        src_image: what to blend with: an image that fits the image's shape, or one number.
        src_weight: its weight.
        dst_weight: the weight of the image it is applied to.
    """

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Blend.

        Args:
            img: (H, W[, C]) uint8 in [0, 255], or floating point.
            interp: not used; blending interpolates nothing.

        Returns:
            The image, of the same dtype; uint8 is clipped to [0, 255] and cut to whole numbers.
        """
        if img.dtype != np.uint8:
            return super().apply_image(img)
        source = np.asarray(self.src_image)
        if source.ndim == 0:
            return np.take(self._table(source), img)
        if source.ndim == 1 and img.ndim == 3 and len(source) == img.shape[2]:
            channels = [np.take(self._table(value), img[:, :, c]) for c, value in enumerate(source)]
            return np.stack(channels, axis=2)
        return self._blend(img, source)

    def _table(self, value: np.ndarray) -> np.ndarray:
        """Return what becomes of each of the 256 values where the source is ``value``."""
        # summed in float64 by name: numpy 1 and 2 promote a scalar beside an array differently, the pixels are the same
        scaled = float(self.dst_weight) * np.arange(256, dtype=np.float32)
        blended = float(self.src_weight) * float(value) + scaled.astype(np.float64)
        return np.clip(blended, 0, 255).astype(np.uint8)

    def _blend(self, img: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Blend with an image, by torch, whose arithmetic runs in a tenth of numpy's time."""
        part = torch.from_numpy(source.astype(np.float32)).mul_(self.src_weight)
        blended = image_to_tensor(img).float().mul_(self.dst_weight).add_(part)
        return blended.clamp_(0, 255).to(torch.uint8).numpy()


class ColorTransform(Transform):
    """A function of the image that moves no pixel.

    Args:
        op: takes an image (H, W[, C]) and returns one of the same size.

    Raises:
        TypeError: ``op`` cannot be called.
    """

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__()
        if not callable(op):
            raise TypeError(f"op must be a function of an image, got {type(op).__name__}")
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return ``op(img)``."""
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the points as they are."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return the label map as it is."""
        return segmentation

    def inverse(self) -> Transform:
        """Return a transform that does nothing: only geometry is undone."""
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """A function of a PIL image that moves no pixel, such as ``PIL.ImageOps.autocontrast``.

    Args:
        op: takes and returns a ``PIL.Image.Image``.
    """

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Return ``op`` of the image, uint8 (H, W) or (H, W, 3)."""
        return np.array(self.op(Image.fromarray(np.ascontiguousarray(img))))  # type: ignore[arg-type]


class RandomContrast(Augmentation):
    """Move all values away from or towards the image's mean; 1 changes nothing, below 1 is less contrast.

    Args:
        intensity_min: lowest intensity to draw.
        intensity_max: highest.
    """

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self.intensity_min, self.intensity_max = intensity_min, intensity_max

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw an intensity for an image (H, W[, C])."""
        intensity = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(image.mean(), 1 - intensity, intensity)


class RandomBrightness(Augmentation):
    """Multiply all values; 1 changes nothing, below 1 is darker.

    Args:
        intensity_min: lowest intensity to draw.
        intensity_max: highest.
    """

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self.intensity_min, self.intensity_max = intensity_min, intensity_max

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw an intensity for an image (H, W[, C])."""
        intensity = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(0, 1 - intensity, intensity)


class RandomSaturation(Augmentation):
    """Blend with the grey image; 1 changes nothing, 0 is grey. The image must be RGB.

    Args:
        intensity_min: lowest intensity to draw.
        intensity_max: highest.
    """

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        super().__init__()
        self.intensity_min, self.intensity_max = intensity_min, intensity_max

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw an intensity for an RGB image (H, W, 3).

        Raises:
            ValueError: the image has not three channels.
        """
        _check_rgb(image, self)
        intensity = np.random.uniform(self.intensity_min, self.intensity_max)
        grey = (image_to_tensor(image).float() @ torch.tensor(_LUMA)).numpy()[:, :, np.newaxis]
        return BlendTransform(grey, 1 - intensity, intensity)


class RandomLighting(Augmentation):
    """Shift the colour along the directions in which the colours of natural images vary. The image must be RGB.

    Args:
        scale: standard deviation of the drawn weights.

    Source:
        Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw weights for an RGB image (H, W, 3).

        Raises:
            ValueError: the image has not three channels.
        """
        _check_rgb(image, self)
        weights = np.random.normal(scale=self.scale, size=3)
        return BlendTransform(_COLOUR_DIRECTIONS.dot(weights * _COLOUR_SPREADS), 1.0, 1.0)


def _check_rgb(image: np.ndarray, augmentation: Augmentation) -> None:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{type(augmentation).__name__} needs an RGB image (H, W, 3), got {image.shape}")
