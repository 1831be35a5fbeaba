"""Images and distributions on their way from the run to the writers."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch

__all__ = ["Histogram", "Picture", "VisualStorage", "make_histogram"]

PICTURE_LIMIT = 64  # images that may wait, should nobody write them


class Picture(NamedTuple):
    """An image to write: RGB, (3, H, W), uint8, or float in [0, 1]."""

    name: str
    image: Any
    iteration: int
    number: int


class Histogram(NamedTuple):
    """The distribution of a tensor at one iteration, in the terms of TensorBoard's raw histograms."""

    name: str
    iteration: int
    fields: dict[str, Any]


def make_histogram(name: str, iteration: int, tensor: torch.Tensor, bins: int = 1000) -> Histogram:
    """Count a tensor's elements in equal bins between the smallest and the largest one; this waits for the device.

    Args:
        name: its name.
        iteration: when it was measured.
        tensor: any shape, at least one element.
        bins: how many.
    """
    data = tensor.detach().float().flatten()
    low, high = (float(edge) for edge in torch.aminmax(data))
    fields = {
        "min": low,
        "max": high,
        "num": data.numel(),
        "sum": float(data.sum()),
        "sum_squares": float(data.square().sum()),
        "bucket_limits": torch.linspace(low, high, bins + 1)[1:].tolist(),
        "bucket_counts": torch.histc(data, bins).tolist(),
    }
    return Histogram(name, iteration, fields)


class VisualStorage:
    """The part of the event storage that holds images and histograms until they are written."""

    def __init__(self) -> None:
        self.iter = 0
        self._prefix = ""
        self._pictures: deque[Picture] = deque(maxlen=PICTURE_LIMIT)
        self._picture_count = 0
        self._histograms: list[Histogram] = []

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Hand in an image for the writers that show images.

        Args:
            img_name: its name.
            img_tensor: tensor or array (3, H, W), RGB; uint8, or float in [0, 1].
        """
        self._picture_count += 1
        self._pictures.append(Picture(self._prefix + img_name, img_tensor, self.iter, self._picture_count))

    def put_histogram(self, hist_name: str, hist_tensor: torch.Tensor, bins: int = 1000) -> None:
        """Record the distribution of a tensor's elements; this waits for the device.

        Args:
            hist_name: its name.
            hist_tensor: a tensor of any shape.
            bins: number of equal bins between the smallest and the largest element.
        """
        self._histograms.append(make_histogram(self._prefix + hist_name, self.iter, hist_tensor, bins))

    def pictures(self) -> list[Picture]:
        """Return the images since :meth:`clear_images`, of many the newest ones."""
        return list(self._pictures)

    def clear_images(self) -> None:
        """Forget the images; done once all writers have seen them."""
        self._pictures.clear()

    def histograms(self) -> list[Histogram]:
        """Return the histograms recorded since :meth:`clear_histograms`."""
        return list(self._histograms)

    def clear_histograms(self) -> None:
        """Forget the histograms; done once all writers have seen them."""
        self._histograms.clear()
