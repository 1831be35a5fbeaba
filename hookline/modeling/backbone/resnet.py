"""ResNet and ResNeXt."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hookline.modeling._checks import check_choice, check_positive
from hookline.modeling.backbone.backbone import Backbone
from hookline.modeling.backbone.resnet_blocks import BasicBlock, BasicStem, BottleneckBlock
from hookline.modeling.layers import CNNBlockBase
from hookline.modeling.layers.recompute import RecomputedSequential

__all__ = ["BasicBlock", "BasicStem", "BottleneckBlock", "ResNet", "ResNetBlockBase"]

ResNetBlockBase = CNNBlockBase

_BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class ResNet(Backbone):
    """A stem and stages of residual blocks; the features are `stem`, `res2`, `res3` ... and, as a classifier, `linear`.

    Args:
        stem: The first block, of any kind.
        stages: One list of blocks for each stage; the first becomes `res2`.
        num_classes: If given, a classifier on the pooled last stage is added.
        out_features: Features to return. The last one if None. Stages behind the last one named are left out.
        freeze_at: How many parts to freeze from the start; see `freeze`.
        with_cp: Keep only the inputs of the stages' blocks for the backward pass and compute what is inside again
            there: less memory, more time, the same gradients.

    Raises:
        ValueError: If there is no stage, a stage is empty, or a feature is not known.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2015.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        names = [f"res{index}" for index in range(2, 2 + len(stages))]
        if not stages or not all(len(blocks) for blocks in stages):
            raise ValueError(f"stages: {len(stages)} given; at least one is needed and none may be empty.")
        last = names[-1] if num_classes is None else "linear"
        self._out_features = [last] if out_features is None else list(out_features)
        for feature in self._out_features:
            check_choice("out_features", feature, ["stem", *names, *(["linear"] if num_classes else [])])
        if "linear" not in self._out_features:
            names = names[: max((names.index(f) + 1 for f in self._out_features if f in names), default=0)]
        self.num_classes = num_classes
        self.stem = stem
        self.stage_names = tuple(names)
        self._out_feature_channels = {"stem": stem.out_channels}
        self._out_feature_strides = {"stem": stem.stride}
        self.with_cp = with_cp
        self._add_stages(stages)
        if "linear" in self._out_features and num_classes is not None:
            self._out_feature_channels["linear"] = num_classes
            self._out_feature_strides["linear"] = self._out_feature_strides[names[-1]]
            self.linear = nn.Linear(stages[-1][-1].out_channels, num_classes)
            # "The 1000-way fully-connected layer is initialized by drawing from a zero-mean Gaussian with std of 0.01."
            nn.init.normal_(self.linear.weight, std=0.01)
        self.freeze(freeze_at)

    def _add_stages(self, stages: Sequence[Sequence[CNNBlockBase]]) -> None:
        stride = self.stem.stride
        for name, blocks in zip(self.stage_names, stages, strict=False):
            self.add_module(name, RecomputedSequential(*blocks) if self.with_cp else nn.Sequential(*blocks))
            for block in blocks:
                stride *= block.stride
            self._out_feature_channels[name] = blocks[-1].out_channels
            self._out_feature_strides[name] = stride

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Compute the features of (B, 3, H, W) images.

        Args:
            x: Normalised images.

        Returns:
            (B, C, H / stride, W / stride) by feature name; `linear` is (B, K).

        Raises:
            ValueError: If the input is not a batch of images.
        """
        if x.dim() != 4:
            raise ValueError(f"ResNet takes images of shape (B, C, H, W), got {tuple(x.shape)}.")
        x = self.stem(x)
        features = {"stem": x}
        for name in self.stage_names:
            x = features[name] = getattr(self, name)(x)
        if "linear" in self._out_features:
            features["linear"] = self.linear(x.mean((2, 3)))
        return {name: features[name] for name in self._out_features}

    def freeze(self, freeze_at: int = 0) -> "ResNet":
        """Freeze the first parts: their weights stop learning, their batch norms become constants.

        Args:
            freeze_at: 0 nothing, 1 the stem, 2 the stem and res2, and so on.

        Returns:
            The network itself.

        Raises:
            ValueError: If there are not so many parts.
        """
        if not 0 <= freeze_at <= len(self.stage_names) + 1:
            raise ValueError(f"freeze_at={freeze_at}, but there are the stem and {len(self.stage_names)} stages.")
        if freeze_at >= 1:
            self.stem.freeze()
        for name in self.stage_names[: max(freeze_at - 1, 0)]:
            for block in getattr(self, name):
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: type[CNNBlockBase], num_blocks: int, *, in_channels: int, out_channels: int, **kwargs: Any
    ) -> list[CNNBlockBase]:
        """Build the blocks of one stage.

        Args:
            block_class: Class of every block.
            num_blocks: How many blocks.
            in_channels: Channels of the stage's input.
            out_channels: Channels of every block's output.
            kwargs: Arguments of the blocks. `NAME_per_block=[...]` gives NAME block by block.

        Returns:
            The blocks.

        Raises:
            ValueError: If `block_class` is no class of blocks, a list has another length than `num_blocks`, or an
                argument is given both ways.
        """
        if not (isinstance(block_class, type) and issubclass(block_class, CNNBlockBase)):
            raise ValueError(f"block_class={block_class!r} must be a subclass of CNNBlockBase, as BottleneckBlock is.")
        check_positive(num_blocks=num_blocks)
        shared = {name: value for name, value in kwargs.items() if not name.endswith("_per_block")}
        varying = {name.removesuffix("_per_block"): value for name, value in kwargs.items() if name not in shared}
        for name, values in varying.items():
            if len(values) != num_blocks:
                raise ValueError(f"{name}_per_block has {len(values)} values for num_blocks={num_blocks}.")
            if name in shared:
                raise ValueError(f"{name} and {name}_per_block are both given.")
        blocks = []
        for index in range(num_blocks):
            own = {name: values[index] for name, values in varying.items()}
            channels = in_channels if index == 0 else out_channels
            blocks.append(block_class(in_channels=channels, out_channels=out_channels, **shared, **own))
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: type[CNNBlockBase] | None = None, *, res5_dilation: int = 1, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Build the four stages of a standard ResNet.

        Args:
            depth: 18, 34, 50, 101 or 152.
            block_class: `BasicBlock` below depth 50 and `BottleneckBlock` from there on, if None.
            res5_dilation: 2 keeps the resolution of res4 in res5 and dilates its 3x3 convolutions instead.
            kwargs: Further arguments of the blocks; `bottleneck_channels` defaults to a quarter of the output's.

        Returns:
            Lists of blocks, for res2 to res5.
        """
        check_choice("depth", depth, _BLOCKS_PER_STAGE)
        check_choice("res5_dilation", res5_dilation, (1, 2))
        deep = depth >= 50
        block_class = block_class or (BottleneckBlock if deep else BasicBlock)
        widths = [256, 512, 1024, 2048] if deep else [64, 128, 256, 512]
        stages = []
        in_channels = 64
        for index, (num_blocks, width) in enumerate(zip(_BLOCKS_PER_STAGE[depth], widths, strict=True)):
            own = dict(kwargs)
            if deep:
                own.setdefault("bottleneck_channels", width // 4)
            dilated = index == 3 and res5_dilation > 1
            if dilated:
                own["dilation"] = res5_dilation
            stride = 1 if index == 0 or dilated else 2
            own["stride_per_block"] = [stride] + [1] * (num_blocks - 1)
            stages.append(
                ResNet.make_stage(block_class, num_blocks, in_channels=in_channels, out_channels=width, **own)
            )
            in_channels = width
        return stages
