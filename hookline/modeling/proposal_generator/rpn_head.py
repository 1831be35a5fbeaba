"""The head of a region proposal network."""

from collections.abc import Sequence

from torch import Tensor, nn

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import Conv2d


class StandardRPNHead(nn.Module):
    """3x3 convolutions, then two 1x1 ones for the score and the offsets of every anchor, shared by all levels.

    Args:
        in_channels: Channels of every feature map.
        num_anchors: Anchors per cell.
        box_dim: Numbers that describe a box.
        conv_dims: Channels of each 3x3 convolution; -1 keeps those of its input.

    Raises:
        ValueError: If `conv_dims` is empty or holds a number that is no count of channels.

    Source: Ren et al., "Faster R-CNN", 2015, section 3.1.
    """

    def __init__(
        self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, num_anchors=num_anchors, box_dim=box_dim)
        if not conv_dims or any(width != -1 and width <= 0 for width in conv_dims):
            raise ValueError(f"conv_dims={list(conv_dims)} must hold numbers of channels, or -1 for the input's.")
        self.num_anchors = num_anchors
        channels, convs = in_channels, []
        for width in conv_dims:
            wider = channels if width == -1 else width
            convs.append(Conv2d(channels, wider, kernel_size=3, padding=1, activation=nn.ReLU(inplace=True)))
            channels = wider
        # Checkpoints call a single convolution `conv`, and several `conv.conv0`, `conv.conv1` and so on.
        named = nn.Sequential()
        for index, conv in enumerate(convs):
            named.add_module(f"conv{index}", conv)
        self.conv = convs[0] if len(convs) == 1 else named
        self.objectness_logits = nn.Conv2d(channels, num_anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, num_anchors * box_dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Score and shift the anchors.

        Args:
            features: (B, C, H, W) of each level.

        Returns:
            By level: (B, A, H, W) objectness logits, and (B, A * box_dim, H, W) offsets.
        """
        hidden = [self.conv(feature) for feature in features]
        return [self.objectness_logits(x) for x in hidden], [self.anchor_deltas(x) for x in hidden]
