"""Measured numbers that may still be on a device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

__all__ = ["as_scalar", "to_floats"]


def as_scalar(name: str, value: Any) -> float | torch.Tensor:
    """Turn what a user measured into a float, or into a scalar tensor of its own memory.

    Args:
        name: the metric, for messages.
        value: a number, or a tensor of one element.

    Raises:
        TypeError: if the value is no number.
        ValueError: if the tensor has several elements.
    """
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            raise ValueError(f"scalar {name!r} must have one element, got a tensor of shape {tuple(value.shape)}")
        value = value.detach().reshape(())
        # Whole numbers above 2**24 would suffer beside fp32 losses; MPS has no fp64.
        whole = not value.is_floating_point() and value.device.type != "mps"
        return value.to(torch.float64) if whole else value.clone()
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"scalar {name!r} must be a number or a tensor of one element, got {value!r}") from error


def to_floats(tensors: Sequence[torch.Tensor]) -> list[float]:
    """Read scalars with one transfer for each device that they are on, all at once.

    Args:
        tensors: each of no dimension, any floating-point dtype.
    """
    devices = {tensor.device for tensor in tensors}
    if len(devices) == 1:
        return torch.stack(list(tensors)).tolist()
    values: dict[torch.device, Iterator[float]] = {
        device: iter(torch.stack([tensor for tensor in tensors if tensor.device == device]).tolist())
        for device in devices
    }
    return [next(values[tensor.device]) for tensor in tensors]
