"""Keypoints of regions: head, loss, inference.

Axes: R regions of all images, K keypoints, S side of a heat map.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import Conv2d, ConvTranspose2d, ShapeSpec, cat
from hookline.structures import Instances, heatmaps_to_keypoints


def keypoint_rcnn_loss(
    pred_keypoint_logits: Tensor, instances: Sequence[Instances], normalizer: float | None
) -> Tensor:
    """Compute the cross-entropy of the cell of each visible keypoint among all cells of its heat map, in float32.

    `1 / normalizer * sum over visible keypoints of -log softmax over cells (logits)[true cell]`.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        instances: `proposal_boxes` and `gt_keypoints` of each image; R in all.
        normalizer: What the sum is divided by; None for the number of visible keypoints.

    Returns:
        A scalar; zero, and connected to the graph, without visible keypoints.

    Source: He et al., "Mask R-CNN", 2017, section 5.
    """
    present = [one for one in instances if len(one)]
    if not present:
        return pred_keypoint_logits.float().sum() * 0
    side = pred_keypoint_logits.shape[-1]
    targets = [one.gt_keypoints.to_heatmap(one.proposal_boxes.tensor, side) for one in present]
    cells = cat([cell.flatten() for cell, _ in targets])
    visible = cat([valid.flatten() for _, valid in targets]).bool()
    logits = pred_keypoint_logits.flatten(0, 1).flatten(1).float()
    loss = F.cross_entropy(logits, cells.masked_fill(~visible, -100), reduction="sum", ignore_index=-100)
    return loss / (visible.sum().clamp(min=1) if normalizer is None else normalizer)


def keypoint_rcnn_inference(pred_keypoint_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Add `pred_keypoints` (N, K, 3): x, y, score; and `pred_keypoint_heatmaps` to the instances.

    Args:
        pred_keypoint_logits: (R, K, S, S).
        pred_instances: `pred_boxes` of each image; R in all. Changed in place.
    """
    boxes = cat([instances.pred_boxes.tensor for instances in pred_instances])
    logits = pred_keypoint_logits.detach().float()
    points = heatmaps_to_keypoints(logits, boxes.detach())[:, :, [0, 1, 3]]
    counts = list(map(len, pred_instances))
    for own, maps, instances in zip(points.split(counts), logits.split(counts), pred_instances, strict=True):
        instances.pred_keypoints = own
        instances.pred_keypoint_heatmaps = maps


class BaseKeypointRCNNHead(nn.Module):
    """Loss and inference around the layers of a keypoint head, which subclasses give as `layers`.

    Args:
        num_keypoints: Keypoints of an instance.
        loss_weight: Factor of the loss.
        loss_normalizer: "visible" divides the loss by the number of visible keypoints. A number divides it by that
            number times images: with keypoints times foreground regions of an image, each keypoint weighs the same
            in every batch.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, *, num_keypoints: int, loss_weight: float = 1.0, loss_normalizer: float | str = 1.0) -> None:
        super().__init__()
        check_positive(num_keypoints=num_keypoints)
        if isinstance(loss_normalizer, str) and loss_normalizer != "visible":
            raise ValueError(f"loss_normalizer={loss_normalizer!r} must be a number or 'visible'.")
        self.num_keypoints = num_keypoints
        self.loss_weight = loss_weight
        self.loss_normalizer = loss_normalizer

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Compute the loss in training, or keypoints in evaluation.

        Args:
            x: (R, C, H, W) pooled features.
            instances: Those of each image: for `keypoint_rcnn_loss` or for `keypoint_rcnn_inference`.

        Returns:
            `loss_keypoint` in training; otherwise the instances, with `pred_keypoints`.
        """
        logits = self.layers(x)
        if not self.training:
            keypoint_rcnn_inference(logits, instances)
            return instances
        fixed = not isinstance(self.loss_normalizer, str)
        normalizer = float(self.loss_normalizer) * len(instances) if fixed else None
        return {"loss_keypoint": keypoint_rcnn_loss(logits, instances, normalizer) * self.loss_weight}

    def layers(self, x: Tensor) -> Tensor:
        """Compute the logits.

        Args:
            x: (R, C, H, W) pooled features.

        Returns:
            (R, K, S, S).

        Raises:
            NotImplementedError: In this base class.
        """
        raise NotImplementedError


class KRCNNConvDeconvUpsampleHead(BaseKeypointRCNNHead):
    """3x3 convolutions, then a transposed convolution and an interpolation that double the size each.

    Args:
        input_shape: Channels of the pooled features.
        num_keypoints: Keypoints of an instance.
        conv_dims: Channels of each 3x3 convolution.
        kwargs: Further arguments of `BaseKeypointRCNNHead`.

    Source: He et al., "Mask R-CNN", 2017, section 5.
    """

    def __init__(
        self, input_shape: ShapeSpec, *, num_keypoints: int, conv_dims: Sequence[int], **kwargs: float | str
    ) -> None:
        super().__init__(num_keypoints=num_keypoints, **kwargs)  # type: ignore[arg-type]
        channels = input_shape.channels or 0
        check_positive(**{"input_shape.channels": channels})
        self._conv_names = [f"conv_fcn{index}" for index in range(1, len(conv_dims) + 1)]
        for name, width in zip(self._conv_names, conv_dims, strict=True):
            self.add_module(name, Conv2d(channels, width, 3, padding=1, activation=nn.ReLU(inplace=True)))
            channels = width
        self.score_lowres = ConvTranspose2d(channels, num_keypoints, 4, stride=2, padding=1)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")

    def layers(self, x: Tensor) -> Tensor:
        """Compute (R, K, 4H, 4W) logits from (R, C, H, W) features."""
        for name in self._conv_names:
            x = getattr(self, name)(x)
        return F.interpolate(self.score_lowres(x), scale_factor=2.0, mode="bilinear", align_corners=False)
