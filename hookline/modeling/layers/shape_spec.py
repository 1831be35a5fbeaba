"""The shape of a feature map, as far as it is known before any image is seen."""

from dataclasses import dataclass


@dataclass
class ShapeSpec:
    """Describe a feature map so that the modules reading it can be built.

    A dataclass, so that it may stand in a recipe as it is.

    Attributes:
        channels: Number of channels.
        height: Height in cells of the feature map.
        width: Width in cells of the feature map.
        stride: Image pixels per cell.
    """

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None
