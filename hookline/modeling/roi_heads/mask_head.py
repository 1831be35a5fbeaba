"""Masks of regions: head, loss, inference.

Axes: R regions of all images, K classes, S side of a predicted mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hookline.modeling._checks import check_positive
from hookline.modeling.layers import Conv2d, ConvTranspose2d, ShapeSpec, cat, get_norm
from hookline.modeling.layers.init import c2_msra_fill
from hookline.modeling.layers.norm import NormSpec
from hookline.structures import Instances


def mask_rcnn_loss(pred_mask_logits: Tensor, instances: Sequence[Instances]) -> Tensor:
    """Compute the mean binary cross-entropy of the true class's masks, in float32.

    `mean over regions r and cells of -[t log p + (1 - t) log(1 - p)]` with p = sigmoid of channel class_r, and t the
    ground truth inside the region's box.

    Args:
        pred_mask_logits: (R, K, S, S), or (R, 1, S, S) where classes share a mask.
        instances: `proposal_boxes`, `gt_classes` (foreground only) and `gt_masks` of each image; R in all.

    Returns:
        A scalar; zero, and connected to the graph, without regions.

    Source: He et al., "Mask R-CNN", 2017, section 3, L_mask.
    """
    if len(pred_mask_logits) == 0:
        return pred_mask_logits.float().sum() * 0
    side = pred_mask_logits.shape[-1]
    present = [one for one in instances if len(one)]
    targets = cat([one.gt_masks.crop_and_resize(one.proposal_boxes.tensor, side) for one in present])
    logits = _of_class(pred_mask_logits, cat([one.gt_classes for one in present])).float()
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits, non_blocking=True))


def mask_rcnn_inference(pred_mask_logits: Tensor, pred_instances: Sequence[Instances]) -> None:
    """Add `pred_masks` to the instances: (N, 1, S, S) probabilities of the predicted class's mask.

    Args:
        pred_mask_logits: (R, K, S, S), or (R, 1, S, S) where classes share a mask.
        pred_instances: `pred_classes` of each image; R in all. Changed in place.
    """
    classes = cat([instances.pred_classes for instances in pred_instances])
    probs = _of_class(pred_mask_logits, classes).float().sigmoid()[:, None]
    for own, instances in zip(probs.split(list(map(len, pred_instances))), pred_instances, strict=True):
        instances.pred_masks = own


def _of_class(mask_logits: Tensor, classes: Tensor) -> Tensor:
    """Return the (R, S, S) maps of one class for each region."""
    if mask_logits.shape[1] == 1:
        return mask_logits[:, 0]
    return mask_logits[torch.arange(len(classes), device=classes.device), classes]


class BaseMaskRCNNHead(nn.Module):
    """Loss and inference around the layers of a mask head, which subclasses give as `layers`.

    Args:
        loss_weight: Factor of the loss.
    """

    def __init__(self, *, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, x: Tensor, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Compute the loss in training, or masks in evaluation.

        Args:
            x: (R, C, H, W) pooled features.
            instances: Those of each image: for `mask_rcnn_loss` or for `mask_rcnn_inference`.

        Returns:
            `loss_mask` in training; otherwise the instances, with `pred_masks`.
        """
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

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


class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead):
    """3x3 convolutions, a transposed convolution that doubles the size, and a 1x1 one with a channel per class.

    Args:
        input_shape: Channels of the pooled features.
        num_classes: Number of classes; 1 makes all classes share a mask.
        conv_dims: Channels of each 3x3 convolution, and last those of the transposed one.
        conv_norm: Norm of the 3x3 convolutions, as for `get_norm`.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: If `conv_dims` is empty.

    Source: He et al., "Mask R-CNN", 2017, figure 4 right.
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: NormSpec = "",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(loss_weight=loss_weight)
        if not conv_dims:
            raise ValueError("conv_dims is empty: its last entry is the width of the transposed convolution.")
        channels = input_shape.channels or 0
        check_positive(num_classes=num_classes, **{"input_shape.channels": channels})
        self.num_classes = num_classes
        self._conv_names = [f"mask_fcn{index}" for index in range(1, len(conv_dims))]
        for name, width in zip(self._conv_names, conv_dims, strict=False):
            norm = get_norm(conv_norm, width)
            activation = nn.ReLU(inplace=True)
            conv = Conv2d(channels, width, 3, padding=1, bias=norm is None, norm=norm, activation=activation)
            c2_msra_fill(conv)
            self.add_module(name, conv)
            channels = width
        self.deconv = ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        c2_msra_fill(self.deconv)
        self.predictor = Conv2d(conv_dims[-1], num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def layers(self, x: Tensor) -> Tensor:
        """Compute (R, K, 2H, 2W) logits from (R, C, H, W) features."""
        for name in self._conv_names:
            x = getattr(self, name)(x)
        return self.predictor(F.relu_(self.deconv(x)))
