"""Images of several sizes as one padded batch.

Axes: B images, C channels, H W pixels of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class ImageList:
    """A batch of images in the top left corners of one tensor.

    Args:
        tensor: (B, H, W) or (B, C, H, W).
        image_sizes: (height, width) of each image inside its padding, in pixels.

    Attributes:
        tensor: the batch.
        image_sizes: as given.
    """

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Return one image (H, W) or (C, H, W) without its padding."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Return the batch moved by ``tensor.to(*args, **kwargs)``."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """The device that holds the batch."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Copy images into one batch, padded at the bottom and the right.

        Args:
            tensors: at least one image, (H_i, W_i) or (C, H_i, W_i), of one type and device; what differs in more than
                height and width is refused with a ``ValueError``.
            size_divisibility: the batch's sides become multiples of it, where above 1.
            pad_value: what the padding holds.
            padding_constraints: ``square_size``: pad to a square of this side; ``size_divisibility``: overrides the
                argument. The form in which backbones state their needs.

        Returns:
            The batch; its memory is that of one allocation.
        """
        _check_alike(tensors)
        image_sizes = [(tensor.shape[-2], tensor.shape[-1]) for tensor in tensors]
        height, width = _batch_size(image_sizes, size_divisibility, padding_constraints or {})
        if all(size == (height, width) for size in image_sizes):
            return ImageList(torch.stack(list(tensors)), image_sizes)
        shape = (len(tensors), *tensors[0].shape[:-2], height, width)
        batch = tensors[0].new_empty(shape)
        for index, (tensor, (image_height, image_width)) in enumerate(zip(tensors, image_sizes, strict=True)):
            # only the margins are filled, so that every pixel is written once
            batch[index, ..., :image_height, :image_width] = tensor
            batch[index, ..., image_height:, :] = pad_value
            batch[index, ..., :image_height, image_width:] = pad_value
        return ImageList(batch, image_sizes)


def _check_alike(tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise ValueError("ImageList.from_tensors needs at least one image")
    first = tensors[0]
    for index, tensor in enumerate(tensors):
        if tensor.ndim < 2 or tensor.shape[:-2] != first.shape[:-2]:
            raise ValueError(
                "images of a batch may differ in height and width only: "
                f"image {index} has shape {tuple(tensor.shape)}, image 0 {tuple(first.shape)}"
            )
        if tensor.dtype != first.dtype or tensor.device != first.device:
            raise ValueError(
                f"images of a batch share type and device: image {index} is {tensor.dtype} on {tensor.device}, "
                f"image 0 {first.dtype} on {first.device}"
            )


def _batch_size(sizes: list[tuple[int, int]], divisor: int, constraints: dict[str, int]) -> tuple[int, int]:
    # (height, width) that holds all images and meets the constraints
    unknown = constraints.keys() - {"square_size", "size_divisibility"}
    if unknown:
        raise ValueError(f"unknown padding constraint {sorted(unknown)[0]!r}; known: square_size, size_divisibility")
    height, width = (max(side) for side in zip(*sizes, strict=True))
    square = constraints.get("square_size", 0)
    if square > 0:
        if max(height, width) > square:
            raise ValueError(f"an image of {height}x{width} pixels does not fit into a square of side {square}")
        height = width = square
    divisor = constraints.get("size_divisibility", divisor)
    if divisor > 1:
        height, width = (-(-side // divisor) * divisor for side in (height, width))
    return height, width
