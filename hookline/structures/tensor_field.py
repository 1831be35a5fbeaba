"""What fields of instances that live in one tensor have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="TensorField")


class TensorField:
    """N entries along the first axis of a tensor; a subclass is made from such a tensor alone.

    Attributes:
        tensor: (N, ...).
    """

    tensor: Tensor

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Return the entries moved by ``tensor.to(*args, **kwargs)``."""
        return type(self)(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        """The device that holds the entries."""
        return self.tensor.device

    def __getitem__(self: Self, item: int | slice | list[int] | Tensor) -> Self:
        selected = self.tensor[item]
        # one entry alone is a set of one
        return type(self)(selected[None] if isinstance(item, int) else selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the tensor of one entry after the other."""
        return iter(self.tensor)
