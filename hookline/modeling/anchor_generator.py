"""Anchors: the boxes that a proposal generator starts from.

Axes: L levels, A anchors per cell, H W cells of a feature map.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import ShapeSpec
from hookline.structures import Boxes


class DefaultAnchorGenerator(nn.Module):
    """Place the same boxes on every cell of each feature map.

    Anchors are centred at `(x + offset) * stride`. One of size s and aspect ratio r (height / width) is
    `s / sqrt(r)` wide and `s * sqrt(r)` high. On one cell all ratios of the first size come first; cells follow row
    by row.

    Args:
        sizes: Side lengths in pixels, of the square with the same area: one list per level, or one list for all.
        aspect_ratios: Ratios of height to width: one list per level, or one list for all.
        strides: Pixels per cell of each level.
        offset: Place of the centre in its cell: 0 the corner, 0.5 the middle; in [0, 1).

    Raises:
        ValueError: If an argument is empty or out of range, or the numbers of levels differ.

    Source: Ren et al., "Faster R-CNN", 2015, section 3.1.1.
    """

    box_dim = 4

    def __init__(
        self,
        *,
        sizes: Sequence[Any],
        aspect_ratios: Sequence[Any],
        strides: Sequence[int],
        offset: float = 0.5,
    ) -> None:
        super().__init__()
        if not strides:
            raise ValueError("strides is empty: one for each level is needed.")
        if not 0 <= offset < 1:
            raise ValueError(f"offset={offset!r} must lie in [0, 1).")
        self.strides = list(strides)
        self.offset = offset
        for stride in self.strides:
            check_positive(strides=stride)
        level_sizes = _per_level("sizes", sizes, len(self.strides))
        level_ratios = _per_level("aspect_ratios", aspect_ratios, len(self.strides))
        self._num_levels = len(self.strides)
        for level, (own_sizes, own_ratios) in enumerate(zip(level_sizes, level_ratios, strict=True)):
            cell = self.generate_cell_anchors(own_sizes, own_ratios)
            # Not in checkpoints: they follow from the recipe.
            self.register_buffer(f"_cell_anchors_{level}", cell, persistent=False)

    @staticmethod
    def from_shapes(shapes: Sequence[ShapeSpec], **kwargs: Any) -> "DefaultAnchorGenerator":
        """Build a generator with the strides of feature maps.

        Args:
            shapes: One for each level.
            kwargs: Further arguments of the constructor.

        Returns:
            The generator.
        """
        return DefaultAnchorGenerator(strides=[shape.stride or 0 for shape in shapes], **kwargs)

    @staticmethod
    def generate_cell_anchors(
        sizes: Sequence[float] = (32, 64, 128, 256, 512), aspect_ratios: Sequence[float] = (0.5, 1, 2)
    ) -> Tensor:
        """Compute the anchors of one cell, centred at the origin.

        Args:
            sizes: Side lengths in pixels.
            aspect_ratios: Ratios of height to width.

        Returns:
            (len(sizes) * len(aspect_ratios), 4) float32 XYXY.
        """
        halves = [
            (size / math.sqrt(ratio) / 2, size * math.sqrt(ratio) / 2) for size in sizes for ratio in aspect_ratios
        ]
        return torch.tensor([(-w, -h, w, h) for w, h in halves], dtype=torch.float32)

    @property
    def cell_anchors(self) -> list[Tensor]:
        """(A, 4) anchors of one cell, by level."""
        return [getattr(self, f"_cell_anchors_{level}") for level in range(self._num_levels)]

    @property
    def num_anchors(self) -> list[int]:
        """Anchors per cell, by level."""
        return [len(cell) for cell in self.cell_anchors]

    num_cell_anchors = num_anchors

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """Place the anchors on feature maps.

        Args:
            features: (B, C, H, W) of each level; only their size counts.

        Returns:
            H * W * A anchors for each level, by row, column, anchor.

        Raises:
            ValueError: If the number of levels is another than that of strides.
        """
        if len(features) != self._num_levels:
            raise ValueError(f"{len(features)} feature maps given to an anchor generator of {self._num_levels} levels.")
        levels = zip(features, self.cell_anchors, self.strides, strict=True)
        return [Boxes(self._place(cell, feature.shape[-2:], stride)) for feature, cell, stride in levels]

    def _place(self, cell: Tensor, size: Sequence[int], stride: int) -> Tensor:
        """Return (H * W * A, 4) copies of the (A, 4) anchors of one cell."""
        cell = cell.float()
        ys, xs = (
            torch.arange(length, device=cell.device, dtype=cell.dtype).add_(self.offset).mul_(stride) for length in size
        )
        placed = cell.new_empty((len(ys), len(xs), len(cell), 4))
        placed[..., 0::2] = xs[None, :, None, None] + cell[:, 0::2]
        placed[..., 1::2] = ys[:, None, None, None] + cell[:, 1::2]
        return placed.view(-1, 4)


def _per_level(name: str, values: Sequence[Any], num_levels: int) -> list[list[float]]:
    """Give each level its list: `values` may be a list for all levels, alone or in another list.

    Raises:
        ValueError: If there are no values, not one list for each level, or a value is not above 0.
    """
    if not values:
        raise ValueError(f"{name} is empty.")
    if not isinstance(values[0], Sequence):
        values = [values]
    if len(values) == 1:
        values = [values[0]] * num_levels
    if len(values) != num_levels:
        raise ValueError(f"{name} has lists for {len(values)} levels, but there are {num_levels} strides.")
    for value in (value for level in values for value in level):
        check_positive(**{name: value})
    return [[float(value) for value in level] for level in values]
