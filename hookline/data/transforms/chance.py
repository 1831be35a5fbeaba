"""Augmentations that happen with a probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform

from hookline.data.transforms.augmentation import AugInput, Augmentation, AugmentationList

__all__ = ["RandomApply", "RandomFlip"]


class RandomApply(Augmentation):
    """Apply an augmentation sometimes.

    Args:
        tfm_or_aug: the augmentation or transform.
        prob: how often, in [0, 1].

    Raises:
        ValueError: ``prob`` is outside [0, 1].
    """

    def __init__(self, tfm_or_aug: Augmentation | Transform, prob: float = 0.5) -> None:
        super().__init__()
        _check_probability(prob)
        self.aug = AugmentationList([tfm_or_aug]).augs[0]
        self.prob = prob

    def get_transform(self, *args: Any) -> Transform:
        """Draw whether to apply it, and then the transform of the augmentation for ``args``."""
        return self.aug.get_transform(*args) if self._rand_range() < self.prob else NoOpTransform()

    def __call__(self, aug_input: AugInput) -> Transform:
        """Draw, apply to ``aug_input`` in place, and return what was applied."""
        return self.aug(aug_input) if self._rand_range() < self.prob else NoOpTransform()


class RandomFlip(Augmentation):
    """Mirror the image sometimes.

    Args:
        prob: how often, in [0, 1].
        horizontal: swap left and right.
        vertical: swap top and bottom.

    Raises:
        ValueError: both directions are chosen or none, or ``prob`` is outside [0, 1].
    """

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False) -> None:
        super().__init__()
        _check_probability(prob)
        if horizontal == vertical:
            raise ValueError("RandomFlip takes one direction; for both, use two RandomFlip")
        self.prob = prob
        self.horizontal = horizontal
        self.vertical = vertical

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw whether to mirror an image (H, W[, C])."""
        height, width = image.shape[:2]
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


def _check_probability(prob: float) -> None:
    if not 0.0 <= prob <= 1.0:
        raise ValueError(f"prob must lie in [0, 1], got {prob!r}")
