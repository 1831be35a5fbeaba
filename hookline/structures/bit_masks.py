"""Instance masks as bitmaps of the whole image.

Axes: N instances, H W pixels of the image, S the side of a mask head's target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hookline.structures.boxes import Boxes
from hookline.structures.polygon_masks import PolygonMasks
from hookline.structures.rasterize import rasterize_polygons
from hookline.structures.tensor_field import TensorField

if TYPE_CHECKING:
    from hookline.structures.roi_masks import ROIMasks

# roi_align wants floats, four times the bitmaps' memory: at most 256 MiB of them at a time
_PIXELS_AT_ONCE = 2**26


class BitMasks(TensorField):
    """N bitmaps of one size.

    Args:
        tensor: (N, H, W) of bool or what becomes bool.

    Attributes:
        tensor: bool (N, H, W).
        image_size: (H, W).

    Raises:
        ValueError: the shape is another one.
    """

    def __init__(self, tensor: Any) -> None:
        masks = torch.as_tensor(tensor)
        if masks.ndim != 3:
            raise ValueError(f"bit masks must have shape (N, H, W), got {tuple(masks.shape)}")
        self.tensor = masks.to(torch.bool)
        self.image_size: tuple[int, int] = (masks.shape[1], masks.shape[2])

    @staticmethod
    def from_polygon_masks(polygon_masks: PolygonMasks | list[list[Any]], height: int, width: int) -> BitMasks:
        """Rasterise polygons.

        Args:
            polygon_masks: the polygons of N instances in pixels.
            height: of the image in pixels.
            width: of the image in pixels.
        """
        if not isinstance(polygon_masks, PolygonMasks):
            polygon_masks = PolygonMasks(polygon_masks)
        return BitMasks(rasterize_polygons(polygon_masks.polygons, height, width))

    @staticmethod
    def from_roi_masks(roi_masks: ROIMasks, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Paste masks that are known inside boxes only; see ``ROIMasks.to_bitmasks``."""
        return roi_masks.to_bitmasks(boxes, height, width, threshold)

    def nonempty(self) -> Tensor:
        """Return a bool tensor (N,): True for masks with at least one pixel."""
        return _any(self.tensor, (1, 2))

    def area(self) -> Tensor:
        """Return the number of pixels of each mask, int64 (N,)."""
        return self.tensor.sum(dim=(1, 2))

    def get_bounding_boxes(self) -> Boxes:
        """Return the tight boxes around the masks; (0, 0, 0, 0) for a mask without pixels."""
        columns, rows = _any(self.tensor, (1,)), _any(self.tensor, (2,))
        (x0, x1), (y0, y1) = _extent(columns), _extent(rows)
        return Boxes(torch.stack((x0, y0, x1, y1), dim=1) * rows.any(dim=1, keepdim=True))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask out along its box and resize it, as a mask head is trained on.

        Args:
            boxes: (N, 4) in absolute XYXY pixels, one per mask, on the device of the masks.
            mask_size: side S of the target.

        Returns:
            Bool tensor (N, S, S): where the mean of the mask over a cell is at least a half.

        Raises:
            ValueError: there is not one box per mask.
        """
        # torchvision takes a second to load and light users of the structures never come here
        from torchvision.ops import roi_align

        if len(boxes) != len(self):
            raise ValueError(f"crop_and_resize takes one box per mask: {len(boxes)} boxes, {len(self)} masks")
        if len(boxes) == 0:
            return torch.zeros(0, mask_size, mask_size, dtype=torch.bool, device=self.device)
        step = max(1, _PIXELS_AT_ONCE // max(1, self.image_size[0] * self.image_size[1]))
        parts = []
        for masks, regions in zip(self.tensor.split(step), boxes.detach().float().split(step), strict=True):
            index = torch.arange(len(masks), device=self.device, dtype=torch.float32)[:, None]
            rois = torch.cat((index, regions.to(self.device)), dim=1)
            pixels = masks[:, None].float().contiguous()
            parts.append(roi_align(pixels, rois, mask_size, sampling_ratio=0, aligned=True)[:, 0] >= 0.5)
        return torch.cat(parts)

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """Join the masks of several sets in order.

        Args:
            bitmasks_list: at least one set; all of one image size.

        Raises:
            ValueError: the list is empty or the image sizes differ.
        """
        sizes = {masks.image_size for masks in bitmasks_list}
        if len(sizes) != 1:
            raise ValueError(f"BitMasks.cat takes masks of one image size, got {sorted(sizes) or 'none'}")
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and one past the last True along dim 1; nonsense where there is none."""
    flags = occupied.to(torch.uint8)
    return flags.argmax(dim=1), occupied.shape[1] - flags.flip(1).argmax(dim=1)


def _any(masks: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return bool `any` over some dimensions; the largest byte is found 10 to 80 times faster than bool's own `any`."""
    if masks.numel() == 0:
        return masks.new_zeros([size for dim, size in enumerate(masks.shape) if dim not in dims])
    return masks.view(torch.uint8).amax(dims).bool()
