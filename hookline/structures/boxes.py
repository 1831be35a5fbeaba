"""A set of upright boxes in one tensor.

Axes: N boxes, 4 coordinates (x0, y0, x1, y1) in absolute pixels, where pixel (i, j) covers [j, j + 1] x [i, i + 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.structures.tensor_field import TensorField


class Boxes(TensorField):
    """N boxes as a float32 tensor (N, 4) in ``BoxMode.XYXY_ABS``.

    Args:
        tensor: (N, 4) numbers; anything ``torch.as_tensor`` takes. An empty one of any shape means no boxes.

    Attributes:
        tensor: float32 (N, 4); written in place by ``clip`` and ``scale``.

    Raises:
        ValueError: the shape is not (N, 4).
    """

    def __init__(self, tensor: Any) -> None:
        boxes = torch.as_tensor(tensor, dtype=torch.float32)
        if boxes.numel() == 0:
            # the reshape keeps an empty result of the network in the graph
            boxes = boxes.reshape(-1, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes must have shape (N, 4), got {tuple(boxes.shape)}")
        self.tensor = boxes

    def clone(self) -> Boxes:
        """Return a copy with its own memory."""
        return Boxes(self.tensor.clone())

    def area(self) -> Tensor:
        """Return the areas, (N,) in square pixels; a box turned inside out gives a product of signed sides."""
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (x1 - x0) * (y1 - y0)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move the corners into the image, in place.

        Args:
            box_size: (height, width) of the image in pixels.
        """
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        self.tensor = torch.stack(
            (x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)), dim=1
        )

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Return a bool tensor (N,): True where both sides are longer than ``threshold`` pixels."""
        x0, y0, x1, y1 = self.tensor.unbind(1)
        return (x1 - x0 > threshold) & (y1 - y0 > threshold)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """Tell which boxes lie in the image.

        Args:
            box_size: (height, width) of the image in pixels.
            boundary_threshold: how many pixels a box may stick out on any side.

        Returns:
            Bool tensor (N,).
        """
        height, width = box_size
        x0, y0, x1, y1 = self.tensor.unbind(1)
        low = (x0 >= -boundary_threshold) & (y0 >= -boundary_threshold)
        return low & (x1 < width + boundary_threshold) & (y1 < height + boundary_threshold)

    def get_centers(self) -> Tensor:
        """Return the centres (x, y), float32 (N, 2)."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates by ``scale_x`` and ``scale_y``, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """Join sets of boxes; none give an empty set.

        Args:
            boxes_list: the sets, all on one device.

        Returns:
            The boxes of all sets in order, in memory of their own.

        Raises:
            TypeError: something in the list is no ``Boxes``.
        """
        for boxes in boxes_list:
            if not isinstance(boxes, Boxes):
                raise TypeError(f"Boxes.cat joins Boxes, got {type(boxes).__name__}")
        if not boxes_list:
            return cls(torch.empty(0, 4))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"
