"""The stem and the residual blocks of ResNet."""

from torch import Tensor
from torch.nn import functional as F

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import CNNBlockBase, Conv2d, get_norm
from hookline.modeling.layers.init import c2_msra_fill
from hookline.modeling.layers.norm import NormSpec


def _normed_conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm: NormSpec,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> Conv2d:
    """Build a size-keeping convolution without bias, with norm, initialised for ReLU."""
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    c2_msra_fill(conv)
    return conv


class ResidualBlock(CNNBlockBase):
    """A block that adds what it computes to its input: `relu(residual(x) + shortcut(x))`.

    The shortcut is the identity, or a 1x1 convolution where channels or size change.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Input cells per output cell.
        norm: Norm of every convolution, as for `get_norm`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: NormSpec) -> None:
        super().__init__(in_channels, out_channels, stride)
        changes_shape = in_channels != out_channels or stride != 1
        self.shortcut = _normed_conv(in_channels, out_channels, 1, norm, stride) if changes_shape else None

    def residual(self, x: Tensor) -> Tensor:
        """Compute what is added to the shortcut.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            (B, out_channels, H / stride, W / stride), before the activation.

        Raises:
            NotImplementedError: In this base class.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to (B, C, H, W)."""
        out = self.residual(x)
        out += x if self.shortcut is None else self.shortcut(x)
        return F.relu_(out)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions with a shortcut, of ResNet-18 and 34.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution.
        norm: Norm of every convolution, as for `get_norm`.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015, figure 5 left.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, norm: NormSpec = "BN") -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _normed_conv(in_channels, out_channels, 3, norm, stride)
        self.conv2 = _normed_conv(out_channels, out_channels, 3, norm)

    def residual(self, x: Tensor) -> Tensor:
        """Apply both convolutions to (B, C, H, W)."""
        return self.conv2(F.relu_(self.conv1(x)))


class BottleneckBlock(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions with a shortcut, of ResNet-50 and deeper, and of ResNeXt.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bottleneck_channels: Channels of the 3x3 convolution.
        stride: Stride of the block.
        num_groups: Groups of the 3x3 convolution (ResNeXt's cardinality).
        norm: Norm of every convolution, as for `get_norm`.
        stride_in_1x1: Whether the first 1x1 convolution strides (MSRA's weights) or the 3x3 (torchvision's weights).
        dilation: Dilation of the 3x3 convolution.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015, figure 5 right.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: NormSpec = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        check_positive(bottleneck_channels=bottleneck_channels, num_groups=num_groups, dilation=dilation)
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        width = bottleneck_channels
        self.conv1 = _normed_conv(in_channels, width, 1, norm, strides[0])
        self.conv2 = _normed_conv(width, width, 3, norm, strides[1], dilation, num_groups)
        self.conv3 = _normed_conv(width, out_channels, 1, norm)

    def residual(self, x: Tensor) -> Tensor:
        """Apply the three convolutions to (B, C, H, W)."""
        narrow = F.relu_(self.conv1(x))
        return self.conv3(F.relu_(self.conv2(narrow)))


class BasicStem(CNNBlockBase):
    """The beginning of ResNet: a 7x7 convolution of stride 2, ReLU, max pooling of stride 2.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels given to the first stage.
        norm: Norm of the convolution, as for `get_norm`.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: NormSpec = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _normed_conv(in_channels, out_channels, 7, norm, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (B, C, H, W) to (B, out_channels, H / 4, W / 4)."""
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)
