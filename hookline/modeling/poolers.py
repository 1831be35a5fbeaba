"""Pooling of regions from the level of a feature pyramid that suits their size.

Axes: B images, L levels, R regions of all images, C channels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import RoIPool

from hookline.modeling._checks import check_choice, check_positive
from hookline.modeling.layers import ROIAlign, cat
from hookline.structures import Boxes


def convert_boxes_to_pooler_format(box_lists: Sequence[Boxes]) -> Tensor:
    """Join the boxes of a batch into one tensor.

    Args:
        box_lists: Boxes of each image.

    Returns:
        (R, 5) index of the image, then XYXY.
    """
    boxes = cat([box.tensor for box in box_lists])
    counts = torch.tensor([len(box) for box in box_lists])
    image = torch.arange(len(box_lists)).repeat_interleave(counts)
    return torch.cat([image.to(boxes.device, boxes.dtype, non_blocking=True)[:, None], boxes], 1)


def assign_boxes_to_levels(
    box_lists: Sequence[Boxes], min_level: int, max_level: int, canonical_box_size: int, canonical_level: int
) -> Tensor:
    """Choose the pyramid level of each box by its size.

    `level = floor(canonical_level + log2(sqrt(area) / canonical_box_size))`, within the levels that there are.

    Args:
        box_lists: Boxes of each image.
        min_level: Finest level; log2 of its stride.
        max_level: Coarsest level.
        canonical_box_size: Side in pixels of a box that belongs to `canonical_level`.
        canonical_level: That level.

    Returns:
        (R,) int64 levels, counted from 0 for `min_level`.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2016, equation 1.
    """
    side = cat([box.area() for box in box_lists]).float().sqrt()
    # The small number keeps a side of exactly a level's lower bound on that level.
    level = (canonical_level + (side / canonical_box_size + 1e-8).log2()).floor()
    # a box of a diverged model has no size; the losses then say so, not an index far out of range
    return level.nan_to_num(min_level).clamp(min=min_level, max=max_level).to(torch.int64) - min_level


class ROIPooler(nn.Module):
    """Pool every box to one size from the level that suits it.

    Args:
        output_size: (height, width) of the result, or one number for both.
        scales: Feature cells per image pixel of each level: 1 / stride, fine to coarse, halving.
        sampling_ratio: Samples per output cell and axis; 0 takes as many as the box has cells.
        pooler_type: "ROIAlignV2" (pixel centres at half integers), "ROIAlign" (at integers) or "ROIPool" (maximum).
        canonical_box_size: Side in pixels of a box on the canonical level; 224 is ImageNet's.
        canonical_level: Level (log2 of the stride) of such a box.

    Raises:
        ValueError: If scales are not halving powers of two, or an argument is out of range.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2016, section 4.2.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        check_choice("pooler_type", pooler_type, ("ROIAlignV2", "ROIAlign", "ROIPool"))
        check_positive(canonical_box_size=canonical_box_size)
        size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"output_size={output_size!r} must be one or two numbers of at least 1.")
        levels = [-math.log2(scale) for scale in scales]
        expected = [round(levels[0]) + index for index in range(len(levels))] if levels else []
        if not levels or any(abs(level - whole) > 1e-6 for level, whole in zip(levels, expected, strict=True)):
            raise ValueError(f"scales={list(scales)} must be powers of two, each half of the one before.")
        self.output_size = (size[0], size[1])
        self.min_level, self.max_level = expected[0], expected[-1]
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        self.level_poolers = nn.ModuleList(
            RoIPool(self.output_size, scale)
            if pooler_type == "ROIPool"
            else ROIAlign(self.output_size, scale, sampling_ratio, aligned=pooler_type == "ROIAlignV2")
            for scale in scales
        )

    def forward(self, x: Sequence[Tensor], box_lists: Sequence[Boxes]) -> Tensor:
        """Pool.

        Args:
            x: (B, C, H, W) feature map of each level.
            box_lists: Boxes of each image, XYXY in image pixels.

        Returns:
            (R, C, *output_size), in the order of the boxes.

        Raises:
            ValueError: If the number of feature maps or of images does not fit.
        """
        if len(x) != len(self.level_poolers):
            raise ValueError(f"{len(x)} feature maps given to a pooler of {len(self.level_poolers)} scales.")
        if len(box_lists) != len(x[0]):
            raise ValueError(f"boxes of {len(box_lists)} images given with features of {len(x[0])}.")
        if sum(map(len, box_lists)) == 0:
            # Connected to the features, so that every parameter gets a gradient on every rank.
            empty = x[0].new_zeros((0, x[0].shape[1], *self.output_size))
            return empty + sum(feature.sum() * 0 for feature in x)
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = assign_boxes_to_levels(
            box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
        )
        return self._pool_by_level(x, rois, levels)

    def _pool_by_level(self, x: Sequence[Tensor], rois: Tensor, levels: Tensor) -> Tensor:
        order = levels.argsort(stable=True)
        # One wait for the device, where a selection for each level would be several.
        counts = levels.bincount(minlength=len(x)).tolist()
        pooled = [
            pooler(feature, part)
            for pooler, feature, part in zip(self.level_poolers, x, rois[order].split(counts), strict=True)
        ]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return torch.cat(pooled)[back]
