"""Masks known inside boxes, pasted into the image.

Axes: N masks, S the side of a mask head's output, H W pixels of the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

# a GPU pastes whole images of floats: at most 1 GiB of them at a time
_PIXELS_AT_ONCE = 2**28


def paste_masks_in_image(masks: Tensor, boxes: Tensor, image_shape: tuple[int, int], threshold: float = 0.5) -> Tensor:
    """Paste square masks into the image, each stretched over its box.

    A mask is read bilinearly at the centres of the pixels; it is 0 outside. The two axes are interpolated one after the
    other as products with sparse weights, which on a CPU is several times as fast as sampling every pixel.

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
    height, width = image_shape
    dtype = torch.bool if threshold >= 0 else torch.uint8
    result = torch.zeros(len(masks), width, height, dtype=dtype, device=masks.device)
    # mixed precision would move the edges
    with torch.autocast(masks.device.type, enabled=False):
        masks, boxes = masks.float(), boxes.float()
        if masks.device.type == "cpu":
            for index, (x0, y0, x1, y1) in enumerate(_windows(boxes, masks.shape[1], height, width)):
                values = _interpolate(masks[index, None], boxes[index, None], (x0, x1), (y0, y1))
                result[index, x0:x1, y0:y1] = _quantize(values[0], threshold)
        else:
            # a loop over windows would wait for the GPU at each box
            step = max(1, _PIXELS_AT_ONCE // max(1, height * width))
            for start in range(0, len(masks), step):
                part = slice(start, start + step)
                values = _interpolate(masks[part], boxes[part], (0, width), (0, height))
                result[part] = _quantize(values, threshold)
    return result.transpose(1, 2)


def _windows(boxes: Tensor, mask_size: int, height: int, width: int) -> list[list[int]]:
    """Return the pixels [x0, x1) x [y0, y1) that each mask can reach: its box and half a cell around it."""
    margin = (boxes[:, 2:] - boxes[:, :2]) / (2 * mask_size)
    low, high = (boxes[:, :2] - margin).floor(), (boxes[:, 2:] + margin).ceil()
    limit = boxes.new_tensor([width, height])
    low, high = (edge.nan_to_num(0.0).clamp(min=0).minimum(limit) for edge in (low, high))
    return torch.cat((low, high.maximum(low)), dim=1).long().tolist()


def _interpolate(masks: Tensor, boxes: Tensor, x_range: tuple[int, int], y_range: tuple[int, int]) -> Tensor:
    """Return the values at the pixels of a window, (N, width, height) of the window."""
    size = masks.shape[1]
    x_weights = _weights(boxes[:, 0], boxes[:, 2], x_range, size)
    y_weights = _weights(boxes[:, 1], boxes[:, 3], y_range, size)
    return x_weights @ masks.transpose(1, 2) @ y_weights.transpose(1, 2)


def _weights(low: Tensor, high: Tensor, pixels: tuple[int, int], size: int) -> Tensor:
    """Return how much each of ``size`` cells between low and high counts at each pixel's centre, (N, pixels, size)."""
    centres = torch.arange(*pixels, device=low.device, dtype=torch.float32) + 0.5
    cells = (centres - low[:, None]) / (high - low)[:, None] * size - 0.5
    distance = (cells[:, :, None] - torch.arange(size, device=low.device)).abs()
    # a box without width has no pixel centre inside: its infinities and their NaN count nothing
    return (1 - distance).clamp(min=0).nan_to_num(0.0)


def _quantize(values: Tensor, threshold: float) -> Tensor:
    return values >= threshold if threshold >= 0 else (values * 255).to(torch.uint8)
