"""Small tensor functions that several modules need."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import ops


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate, without a copy when there is only one tensor.

    Args:
        tensors: One or more tensors.
        dim: Dimension along which to concatenate.

    Returns:
        The concatenation, or the only tensor itself.
    """
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def nonzero_tuple(x: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of non-zero elements, one (N,) int64 tensor for each dimension of `x`."""
    return torch.atleast_1d(x).nonzero(as_tuple=True)


def cross_entropy(logits: Tensor, target: Tensor, *, reduction: str = "mean", ignore_index: int = -100) -> Tensor:
    """Softmax cross-entropy in float32 that is zero, and connected to the graph, when there is nothing to average.

    `mean over n of -log softmax(logits_n)[target_n]`.

    Args:
        logits: (N, K), any float type.
        target: (N,) int64 in [0, K).
        reduction: "mean", "sum" or "none".
        ignore_index: Target value that does not count.

    Returns:
        A scalar, or (N,) for reduction "none".
    """
    if target.numel() == 0 and reduction == "mean":
        return logits.float().sum() * 0
    return F.cross_entropy(logits.float(), target, reduction=reduction, ignore_index=ignore_index)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Suppress lower-scored boxes that overlap a higher-scored one of the same group.

    Args:
        boxes: (N, 4) XYXY.
        scores: (N,).
        idxs: (N,) int64, the group (class or level) of each box.
        iou_threshold: Boxes that overlap by more are suppressed.

    Returns:
        (M,) int64 indices of the boxes kept, by falling score.
    """
    # Half precision cannot tell neighbouring pixels apart beyond 2048.
    return ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)
