"""Convolution with its normalisation and activation, and the base of residual blocks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hookline.modeling.layers.norm import FrozenBatchNorm2d


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` followed by an optional norm and activation.

    A frozen batch norm is folded into weight and bias at run time, so convolution and norm are one operation and
    the convolution's own weight still learns.

    Args:
        args: As `torch.nn.Conv2d`.
        norm: Layer applied to the convolution's output; its keys are `norm.*`.
        activation: Function applied last.
        kwargs: As `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        *args: Any,
        norm: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, normalise, activate: (B, C_in, H, W) to (B, C_out, H', W')."""
        if isinstance(self.norm, FrozenBatchNorm2d):
            out = self._conv_forward(input, *self.norm.fold(self.weight, self.bias))
        else:
            out = self._conv_forward(input, self.weight, self.bias)
            out = out if self.norm is None else self.norm(out)
        return out if self.activation is None else self.activation(out)


class CNNBlockBase(nn.Module):
    """A block of a network that knows its channels and its stride, and can be frozen.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Input cells per output cell.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def freeze(self) -> "CNNBlockBase":
        """Stop training this block: no gradients, batch norms become constants.

        Returns:
            The block itself.
        """
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self
