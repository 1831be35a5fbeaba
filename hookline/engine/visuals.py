"""Images and distributions on their way from the run to the writers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

__all__ = ["Histogram", "Picture", "make_histogram"]


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
