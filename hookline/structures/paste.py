"""Masks known inside boxes, pasted into the image.

Axes: N masks, S the side of a mask head's output, H W pixels of the image; w h pixels of a window of it.

A mask is read bilinearly at the centres of the pixels. The two axes are interpolated one after the other, as products
with weights: out (w, h) = x_weights (w, S) @ mask^T (S, S) @ y_weights^T (S, h). On a CPU that is several times as fast
as sampling every pixel, and a result in columns costs nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["paste_masks_in_image"]

# a GPU pastes whole images of floats: at most 1 GiB of them at a time
_PIXELS_AT_ONCE = 2**28
# below this many multiplications BLAS libraries stay on the calling thread; on a busy machine the threads of many
# small products wait for each other a hundred times as long as they work
_PRODUCTS_AT_ONCE = 200_000


def paste_masks_in_image(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Paste square masks into the image, each stretched over its box and 0 outside.

    Args:
        masks: (N, S, S) probabilities in [0, 1].
        boxes: (N, 4) in absolute XYXY pixels.
        image_shape: (H, W) in pixels.
        threshold: from which value on a pixel belongs to the mask; a negative one asks for the values themselves.

    Returns:
        Bool (N, H, W); uint8 of 0..255 for a negative threshold. In memory it is (N, W, H), the order in which
        run-length codes are written (see ``hookline.structures.rle``).

    Raises:
        ValueError: the shapes do not fit together.
    """
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"expected masks (N, S, S) and boxes (N, 4), got {tuple(masks.shape)} and {tuple(boxes.shape)}"
        )
    paste = _paste_windows if masks.device.type == "cpu" else _paste_whole
    return paste(masks.detach().float(), boxes.detach().float(), image_shape, threshold).transpose(1, 2)


def _paste_windows(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float) -> Tensor:
    """Paste one mask after the other into the pixels that it can reach; (N, W, H)."""
    height, width = image_shape
    size = masks.shape[1]
    result = np.zeros((len(masks), width, height), dtype=np.bool_ if threshold >= 0 else np.uint8)
    windows = _windows(boxes, size, height, width)
    for place, mask, (x0, y0, x1, y1), window in zip(result, masks.numpy(), boxes.numpy(), windows, strict=True):
        left, top, right, bottom = window
        rows = _weights(x0, x1, left, right, size) @ mask.T
        columns = _weights(y0, y1, top, bottom, size).T
        step = max(1, _PRODUCTS_AT_ONCE // max(1, columns.size))
        for start in range(0, len(rows), step):
            values = rows[start : start + step] @ columns
            strip = place[left + start : left + start + len(values), top:bottom]
            strip[:] = values >= threshold if threshold >= 0 else values * 255
    return torch.from_numpy(result)


def _windows(boxes: Tensor, mask_size: int, height: int, width: int) -> list[list[int]]:
    """Return the pixels [x0, x1) x [y0, y1) that each mask can reach: its box and half a cell around it."""
    margin = (boxes[:, 2:] - boxes[:, :2]) / (2 * mask_size)
    low, high = (boxes[:, :2] - margin).floor(), (boxes[:, 2:] + margin).ceil()
    limit = boxes.new_tensor([width, height])
    low, high = (edge.nan_to_num(0.0).clamp(min=0).minimum(limit) for edge in (low, high))
    return torch.cat((low, high.maximum(low)), dim=1).long().tolist()


def _weights(low: np.float32, high: np.float32, first: int, last: int, size: int) -> np.ndarray:
    """Return how much each of ``size`` cells between low and high counts at each pixel's centre, (pixels, size)."""
    extent = high - low
    if not extent > 0:
        return np.zeros((last - first, size), dtype=np.float32)  # no pixel's centre lies inside
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    cells = (centres - low) / extent * np.float32(size) - np.float32(0.5)
    return np.maximum(1 - np.abs(cells[:, None] - np.arange(size, dtype=np.float32)), 0)


def _paste_whole(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float) -> Tensor:
    """Paste many masks at once over all pixels, as a loop over windows would wait for the GPU at each; (N, W, H)."""
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    result = torch.empty(len(masks), width, height, dtype=dtype, device=masks.device)
    step = max(1, _PIXELS_AT_ONCE // max(1, height * width))
    # mixed precision would move the edges
    with torch.autocast(masks.device.type, enabled=False):
        for start in range(0, len(masks), step):
            part = slice(start, start + step)
            rows = _batched_weights(boxes[part, 0], boxes[part, 2], width, masks.shape[1]) @ masks[part].transpose(1, 2)
            columns = _batched_weights(boxes[part, 1], boxes[part, 3], height, masks.shape[1]).transpose(1, 2)
            values = rows @ columns
            result[part] = values >= threshold if threshold >= 0 else (values * 255).to(dtype)
    return result


def _batched_weights(low: Tensor, high: Tensor, pixels: int, size: int) -> Tensor:
    """Return what ``_weights`` does for N boxes and all pixels of a side, (N, pixels, size)."""
    centres = torch.arange(pixels, device=low.device, dtype=torch.float32) + 0.5
    extent = (high - low)[:, None]
    cells = (centres - low[:, None]) / extent * size - 0.5
    distance = (cells[:, :, None] - torch.arange(size, device=low.device)).abs()
    return torch.where(extent[:, :, None] > 0, (1 - distance).clamp(min=0), 0.0)
