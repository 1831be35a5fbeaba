"""What every backbone offers to the parts that read its features."""

from abc import ABCMeta, abstractmethod

from torch import Tensor, nn

from hookline.modeling.layers import ShapeSpec


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network from images to named feature maps.

    Subclasses fill the three dictionaries below in their constructor and implement `forward`.

    Attributes:
        _out_features: Names of the features returned, in order.
        _out_feature_channels: Channels by feature name.
        _out_feature_strides: Image pixels per cell, by feature name.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of (B, 3, H, W) images, by name."""

    @property
    def size_divisibility(self) -> int:
        """Number by which image height and width must be divisible; 0 for any size."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further wishes on the padding: `square_size` (side in pixels) where the images must be square."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return channels and stride of each feature, by name."""
        return {
            name: ShapeSpec(channels=self._out_feature_channels[name], stride=self._out_feature_strides[name])
            for name in self._out_features
        }
