"""Feature pyramid network."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hookline.modeling._checks import check_choice, check_features, check_positive
from hookline.modeling.backbone.backbone import Backbone
from hookline.modeling.layers import Conv2d, get_norm
from hookline.modeling.layers.init import c2_xavier_fill
from hookline.modeling.layers.norm import NormSpec


class LastLevelMaxPool(nn.Module):
    """Add a coarser level, p6, by taking every second cell of p5."""

    def __init__(self) -> None:
        super().__init__()
        self.num_levels = 1
        self.in_feature = "p5"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Subsample (B, C, H, W) by two."""
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """Add two coarser levels, p6 and p7, by strided convolutions.

    Args:
        in_channels: Channels of `in_feature`.
        out_channels: Channels of p6 and p7.
        in_feature: Feature of the bottom-up network or of the pyramid to start from.

    Source: Lin et al., "Focal Loss for Dense Object Detection", 2017, section 4.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.num_levels = 2
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        c2_xavier_fill(self.p6)
        c2_xavier_fill(self.p7)

    def forward(self, c5: Tensor) -> list[Tensor]:
        """Compute p6 and p7 from (B, C, H, W)."""
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


class FPN(Backbone):
    """Give features of a bottom-up network the same width, and to fine ones the meaning of coarse ones.

    From the coarsest level on: `inner = lateral(feature) + upsample(inner of the level above)`, `p = output(inner)`.
    The features are named by their stride: `p2` has stride 2 ** 2.

    Args:
        bottom_up: Backbone that gives the features.
        in_features: Its features to use, from fine to coarse; strides double from one to the next.
        out_channels: Channels of every level.
        norm: Norm of every convolution, as for `get_norm`; with one, convolutions have no bias.
        top_block: Module that adds coarser levels, with `num_levels` and `in_feature`.
        fuse_type: "sum" adds the two terms of `inner`, "avg" takes their mean.
        square_pad: If positive, side in pixels to which images are to be padded.

    Raises:
        ValueError: If features are missing, not known, or their strides do not double.

    Source: Lin et al., "Feature Pyramid Networks for Object Detection", 2016, section 3.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: NormSpec = "",
        top_block: nn.Module | None = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        shapes = bottom_up.output_shape()
        check_choice("fuse_type", fuse_type, ("sum", "avg"))
        check_positive(out_channels=out_channels)
        check_features("in_features", in_features, shapes)
        self.in_features = tuple(in_features)
        strides = [shapes[name].stride or 0 for name in self.in_features]
        if not strides or any(2 * fine != coarse for fine, coarse in itertools.pairwise(strides)):
            raise ValueError(
                f"in_features={list(in_features)} have strides {strides}: each must double the one before."
            )
        self._stages = [round(math.log2(stride)) for stride in strides]
        for stage, name in zip(self._stages, self.in_features, strict=True):
            self._add_level(stage, shapes[name].channels or 0, out_channels, norm)
        self.top_block = top_block
        self.bottom_up = bottom_up
        self._average = fuse_type == "avg"
        self._square_pad = square_pad
        self._size_divisibility = strides[-1]
        count = len(strides) + (top_block.num_levels if top_block is not None else 0)  # type: ignore[operator]
        levels = range(self._stages[0], self._stages[0] + count)
        self._out_features = [f"p{level}" for level in levels]
        if top_block is not None:
            sources = [*shapes, *self._out_features[: len(strides)]]
            check_choice("top_block.in_feature", top_block.in_feature, sources)
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)

    def _add_level(self, stage: int, in_channels: int, out_channels: int, norm: NormSpec) -> None:
        for kind, channels, kernel in (("lateral", in_channels, 1), ("output", out_channels, 3)):
            conv = Conv2d(
                channels,
                out_channels,
                kernel_size=kernel,
                padding=kernel // 2,
                bias=norm is None or norm == "",
                norm=get_norm(norm, out_channels),
            )
            c2_xavier_fill(conv)
            self.add_module(f"fpn_{kind}{stage}", conv)

    @property
    def size_divisibility(self) -> int:
        """The coarsest bottom-up stride."""
        return self._size_divisibility

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The side of square images, where they are wanted."""
        return {"square_size": self._square_pad} if self._square_pad > 0 else {}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid of (B, 3, H, W) images: (B, out_channels, H / stride, W / stride) by name."""
        bottom_up = self.bottom_up(x)
        inner: Tensor | None = None
        levels: dict[str, Tensor] = {}
        for stage, name in zip(reversed(self._stages), reversed(self.in_features), strict=True):
            lateral = getattr(self, f"fpn_lateral{stage}")(bottom_up[name])
            inner = lateral if inner is None else self._fuse(lateral, inner)
            levels[f"p{stage}"] = getattr(self, f"fpn_output{stage}")(inner)
        if self.top_block is not None:
            source = str(self.top_block.in_feature)
            extra = self.top_block(bottom_up[source] if source in bottom_up else levels[source])
            levels.update(zip(self._out_features[len(self._stages) :], extra, strict=True))
        return {name: levels[name] for name in self._out_features}

    def _fuse(self, lateral: Tensor, above: Tensor) -> Tensor:
        # To the lateral's size, not by a factor of 2: the sizes of odd inputs differ by one.
        lateral = lateral + F.interpolate(above, size=lateral.shape[-2:], mode="nearest")
        return lateral / 2 if self._average else lateral
