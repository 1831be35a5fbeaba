"""Coding of boxes as offsets from other boxes, and the losses on them.

Axes: N boxes, K classes.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import ops

from hookline.modeling._checks import check_choice, check_positive

# Keeps exp() finite: no box grows beyond 1000 / 16 times its anchor in one step.
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)


class Box2BoxTransform:
    """Code a box relative to another one: shift in units of the other's size, and log of the ratio of sizes.

    `dx = wx (x - x_s) / w_s`, `dy = wy (y - y_s) / h_s`, `dw = ww log(w / w_s)`, `dh = wh log(h / h_s)`, with centres
    (x, y), sizes (w, h) and s for the source box.

    Args:
        weights: (wx, wy, ww, wh), above 0. Fast R-CNN takes the reciprocals of the usual standard deviations.
        scale_clamp: Upper bound on dw / ww and dh / wh when decoding.

    Raises:
        ValueError: If there are not four positive weights.

    Source: Girshick et al., "Rich feature hierarchies", 2013, appendix C, equations 1-4 and 6-9.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = _DEFAULT_SCALE_CLAMP) -> None:
        if len(weights) != 4:
            raise ValueError(f"weights={list(weights)} must be four numbers (x, y, width, height).")
        for weight in weights:
            check_positive(weights=weight)
        self.weights = tuple(float(weight) for weight in weights)
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: Tensor, target_boxes: Tensor) -> Tensor:
        """Encode.

        Args:
            src_boxes: (..., 4) XYXY, wider and higher than 0.
            target_boxes: (..., 4) XYXY to reach.

        Returns:
            (..., 4) offsets, float32.
        """
        source_centre, source_size = _centre_and_size(src_boxes.float())
        target_centre, target_size = _centre_and_size(target_boxes.float())
        shift = (target_centre - source_centre) / source_size
        growth = (target_size / source_size).log()
        return _scale(torch.cat([shift, growth], -1), self.weights)

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode.

        Args:
            deltas: (N, K * 4) offsets, K sets for each box; computed on in float32.
            boxes: (N, 4) XYXY.

        Returns:
            (N, K * 4) XYXY float32; not clipped to an image.
        """
        offsets = _scale(deltas.float().unflatten(-1, (-1, 4)), [1 / weight for weight in self.weights])
        centre, size = (part.unsqueeze(-2) for part in _centre_and_size(boxes.float()))
        centre = centre + offsets[..., :2] * size
        half = size * offsets[..., 2:].clamp(max=self.scale_clamp).exp() * 0.5
        return torch.cat([centre - half, centre + half], -1).flatten(-2)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low


def _scale(offsets: Tensor, factors: Sequence[float]) -> Tensor:
    """Multiply the last dimension by numbers that never have to be sent to the device."""
    if all(factor == 1 for factor in factors):
        return offsets
    return torch.stack([part * factor for part, factor in zip(offsets.unbind(-1), factors, strict=True)], -1)


IOU_LOSSES: dict[str, Callable[..., Tensor]] = {
    "giou": ops.generalized_box_iou_loss,
    "diou": ops.distance_box_iou_loss,
    "ciou": ops.complete_box_iou_loss,
}


def check_box_loss_type(value: str) -> None:
    """Refuse a `box_reg_loss_type` that is not known.

    Args:
        value: "smooth_l1" or a key of `IOU_LOSSES`.
    """
    check_choice("box_reg_loss_type", value, ["smooth_l1", *IOU_LOSSES])


def box_regression_loss(
    pred_deltas: Tensor,
    src_boxes: Tensor,
    target_boxes: Tensor,
    used: Tensor,
    *,
    box2box_transform: Box2BoxTransform,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> Tensor:
    """Sum a box regression loss over the boxes in use, in float32.

    - smooth_l1, on offsets d: `sum of 0.5 d^2 / beta if |d| < beta else |d| - 0.5 beta`; L1 where beta is 0.
    - giou, diou, ciou, on decoded boxes: `1 - IoU` plus a penalty for boxes that lie apart.

    Boxes that are not in use cost nothing but may hold anything, so that no selection, which would have to wait for
    the device, is needed.

    Args:
        pred_deltas: (N, 4) predicted offsets.
        src_boxes: (N, 4) XYXY boxes which the offsets start from.
        target_boxes: (N, 4) XYXY boxes to reach.
        used: (N,) bool.
        box2box_transform: Coding of the offsets.
        box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
        smooth_l1_beta: Offset at which the loss turns from quadratic to linear.

    Returns:
        A scalar, connected to the graph of `pred_deltas` even if nothing is in use.

    Source: Girshick, "Fast R-CNN", 2015, equation 3; Rezatofighi et al., "Generalized IoU", 2019, algorithm 1;
    Zheng et al., "Distance-IoU Loss", 2019, equations 7 and 10.
    """
    pred_deltas = pred_deltas.float()
    chosen = used[:, None]
    # With itself as its target and no offset, an unused box has a loss and a gradient that are finite.
    target_boxes = torch.where(chosen, target_boxes.to(src_boxes.dtype), src_boxes)
    pred_deltas = torch.where(chosen, pred_deltas, 0.0)
    if box_reg_loss_type == "smooth_l1":
        target = box2box_transform.get_deltas(src_boxes, target_boxes)
        loss = F.smooth_l1_loss(pred_deltas, target, beta=smooth_l1_beta, reduction="none").sum(1)
    else:
        pred_boxes = box2box_transform.apply_deltas(pred_deltas, src_boxes)
        loss = IOU_LOSSES[box_reg_loss_type](pred_boxes, target_boxes, reduction="none")
    return torch.where(used, loss, 0.0).sum()
