"""Keypoints of instances, and their heat maps.

Axes: N instances, K keypoints, S the side of a heat map. A keypoint is (x, y, visibility): x and y in pixels of the
image, visibility 0 not labelled, 1 labelled but hidden, 2 visible.

Pixel j of an image covers [j, j + 1], and its centre is at j + 0.5: an annotation that names pixels by whole numbers is
to be shifted by 0.5 when it is read (``hookline.data`` does), and back when results are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hookline.structures.tensor_field import TensorField


class Keypoints(TensorField):
    """The keypoints of N instances.

    Args:
        keypoints: (N, K, 3) numbers.

    Attributes:
        tensor: float32 (N, K, 3).

    Raises:
        ValueError: the shape is another one.
    """

    def __init__(self, keypoints: Any) -> None:
        points = torch.as_tensor(keypoints, dtype=torch.float32)
        if points.ndim != 3 or points.shape[2] != 3:
            raise ValueError(f"keypoints must have shape (N, K, 3), got {tuple(points.shape)}")
        self.tensor = points

    def to_heatmap(self, boxes: Tensor, heatmap_size: int) -> tuple[Tensor, Tensor]:
        """Find the cell of a box's heat map that each keypoint falls into: the target of a keypoint head.

        Args:
            boxes: (N, 4) in absolute XYXY pixels, one per instance.
            heatmap_size: side S of the heat map that covers the box.

        Returns:
            cells: int64 (N, K) in [0, S * S), row by row; 0 where not valid.
            valid: bool (N, K), True for labelled keypoints inside the box.

        Raises:
            ValueError: there is not one box per instance.
        """
        if boxes.shape != (len(self), 4):
            raise ValueError(f"to_heatmap takes boxes ({len(self)}, 4), got {tuple(boxes.shape)}")
        points, low, high = self.tensor[:, :, :2], boxes[:, None, :2], boxes[:, None, 2:]
        cells = ((points - low) * (heatmap_size / (high - low))).floor()
        # the far edge of the box still belongs to its last cell
        cells = torch.where(points == high, heatmap_size - 1, cells)
        inside = ((cells >= 0) & (cells < heatmap_size)).all(dim=2)
        valid = inside & (self.tensor[:, :, 2] > 0)
        x, y = torch.where(valid[:, :, None], cells, 0).long().unbind(2)
        return y * heatmap_size + x, valid

    @staticmethod
    def cat(keypoints_list: Sequence[Keypoints]) -> Keypoints:
        """Join the keypoints of several sets in order; all must have the same K."""
        return Keypoints(torch.cat([keypoints.tensor for keypoints in keypoints_list], dim=0))

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)})"


@torch.no_grad()
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """Read the keypoints off the heat maps of boxes.

    Each map is enlarged to the box's size in whole pixels by bicubic interpolation; the keypoint is the centre of the
    highest pixel, moved back into the image.

    Args:
        maps: (N, K, S, S) logits.
        rois: (N, 4) boxes in absolute XYXY pixels.

    Returns:
        (N, K, 4): x, y in pixels, the logit at that place, and its score: the share of the place in the softmax, in
        units of the map's cells.

    Source:
        He et al., Mask R-CNN, 2017, section 5; the half-pixel convention is that of Heckbert, What are the coordinates
        of a pixel?, 1990.
    """
    sides = (rois[:, 2:] - rois[:, :2]).clamp(min=1)
    whole_sides = sides.ceil()
    result = maps.new_zeros(*maps.shape[:2], 4)
    for index, (width, height) in enumerate(whole_sides.long().tolist()):
        enlarged = F.interpolate(maps[index, None], size=(height, width), mode="bicubic", align_corners=False)[0]
        logits, position = enlarged.flatten(1).max(dim=1)
        cells = torch.stack((position % width, position // width), dim=1)
        result[index, :, :2] = (cells + 0.5) * (sides[index] / whole_sides[index]) + rois[index, :2]
        result[index, :, 2] = logits
        # softmax over the map's own cells, shifted by the peak so that nothing overflows
        result[index, :, 3] = 1 / (maps[index].flatten(1) - logits[:, None]).exp().sum(dim=1)
    return result
