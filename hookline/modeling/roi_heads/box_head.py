"""The trunk of the box head."""

from collections.abc import Sequence

from torch import nn

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import Conv2d, ShapeSpec, get_norm
from hookline.modeling.layers.init import c2_msra_fill, c2_xavier_fill
from hookline.modeling.layers.norm import NormSpec


class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then fully connected layers, each with ReLU, over pooled regions.

    Args:
        input_shape: Channels, height and width of a pooled region.
        conv_dims: Channels of each convolution.
        fc_dims: Width of each fully connected layer.
        conv_norm: Norm of the convolutions, as for `get_norm`.

    Raises:
        ValueError: If there is no layer at all.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2016, section 4.2 (two of 1024).
    """

    def __init__(
        self, input_shape: ShapeSpec, *, conv_dims: Sequence[int], fc_dims: Sequence[int], conv_norm: NormSpec = ""
    ) -> None:
        super().__init__()
        if not conv_dims and not fc_dims:
            raise ValueError("conv_dims and fc_dims are both empty: the box head needs at least one layer.")
        channels, height, width = input_shape.channels or 0, input_shape.height or 0, input_shape.width or 0
        check_positive(**{"input_shape.channels": channels})
        for index, out_channels in enumerate(conv_dims, start=1):
            norm = get_norm(conv_norm, out_channels)
            activation = nn.ReLU(inplace=True)
            conv = Conv2d(channels, out_channels, 3, padding=1, bias=norm is None, norm=norm, activation=activation)
            c2_msra_fill(conv)
            self.add_module(f"conv{index}", conv)
            channels = out_channels
        self._output_shape = ShapeSpec(channels=channels, height=height, width=width)
        if fc_dims:
            check_positive(**{"input_shape.height": height, "input_shape.width": width})
            self.add_module("flatten", nn.Flatten())
        features = channels * height * width
        for index, out_features in enumerate(fc_dims, start=1):
            linear = nn.Linear(features, out_features)
            c2_xavier_fill(linear)
            self.add_module(f"fc{index}", linear)
            self.add_module(f"fc_relu{index}", nn.ReLU(inplace=True))
            features = out_features
            self._output_shape = ShapeSpec(channels=features)

    @property
    def output_shape(self) -> ShapeSpec:
        """Channels, and height and width where there is no fully connected layer."""
        return self._output_shape
