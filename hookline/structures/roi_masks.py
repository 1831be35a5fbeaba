"""Instance masks known inside boxes only: what a mask head predicts.

Axes: N instances, S the side of the masks, H W pixels of the image.
"""

from __future__ import annotations

from torch import Tensor

from hookline.structures.bit_masks import BitMasks
from hookline.structures.paste import paste_masks_in_image
from hookline.structures.tensor_field import TensorField


class ROIMasks(TensorField):
    """N square masks, each meant to fill a box that is kept elsewhere.

    Args:
        tensor: (N, S, S) probabilities in [0, 1].

    Attributes:
        tensor: the same.

    Raises:
        ValueError: the shape is another one.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.ndim != 3 or tensor.shape[1] != tensor.shape[2]:
            raise ValueError(f"ROI masks must have shape (N, S, S), got {tuple(tensor.shape)}")
        self.tensor = tensor

    def to_bitmasks(self, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> BitMasks:
        """Paste the masks into an image.

        Args:
            boxes: (N, 4) in absolute XYXY pixels of the image.
            height: H in pixels.
            width: W in pixels.
            threshold: from which probability on a pixel belongs to the mask.
        """
        return BitMasks(paste_masks_in_image(self.tensor, boxes, (height, width), threshold))

    def __repr__(self) -> str:
        return f"ROIMasks(num_instances={len(self)}, mask_size={self.tensor.shape[1]})"
