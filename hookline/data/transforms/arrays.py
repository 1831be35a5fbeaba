"""Between numpy images and torch tensors without copying where it can be avoided.

Images inside transforms are numpy arrays (H, W) or (H, W, C), as third-party augmentations expect. Flips and the change
of channel order leave views with negative strides, which torch cannot wrap; torch does the copy several times faster
than numpy, so it is done here, once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["image_to_chw", "image_to_tensor"]


def image_to_tensor(image: np.ndarray) -> Tensor:
    """Wrap an array in a tensor of the same shape; copies only what torch cannot wrap.

    Args:
        image: array of any shape and strides; a writable array without negative strides is shared, not copied.

    Returns:
        Tensor of the same shape and dtype (uint16 and the like as torch has them).
    """
    flipped = [axis for axis, stride in enumerate(image.strides) if stride < 0]
    if flipped:
        image = image[tuple(slice(None, None, -1 if axis in flipped else 1) for axis in range(image.ndim))]
    if not image.flags.writeable:
        image = image.copy()
    tensor = torch.from_numpy(image)
    return tensor.flip(flipped) if flipped else tensor


def image_to_chw(image: np.ndarray) -> Tensor:
    """Return the image as models take it.

    Args:
        image: (H, W) or (H, W, C), any strides.

    Returns:
        Contiguous tensor (C, H, W) of the same dtype; C is 1 for (H, W).
    """
    if image.ndim == 2:
        return image_to_tensor(image)[None].contiguous()
    reverse_channels = image.strides[2] < 0
    if reverse_channels:  # planes are cheaper to swap than channels within pixels
        image = image[:, :, ::-1]
    planes = image_to_tensor(image).permute(2, 0, 1).contiguous()
    return planes.flip(0) if reverse_channels else planes
