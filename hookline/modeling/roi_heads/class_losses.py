"""Classification losses where every class is scored by itself.

Axes: R regions, K classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_cross_entropy(logits: Tensor, gt_classes: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Sum binary cross-entropies over classes and take their mean over regions, in float32.

    `-1/R sum over r, k of [k = class_r] log p_rk + [k != class_r] log(1 - p_rk)`, with p = sigmoid(logits).

    Args:
        logits: (R, K).
        gt_classes: (R,) int64 in [0, K]; K is background, which is none of the classes.
        chosen: (K,) 1 for the classes that count, 0 for the others; all count if None.

    Returns:
        A scalar; zero, and connected to the graph, without regions.

    Source: Gupta, Dollar, Girshick, "LVIS", 2019, section 5.
    """
    num_classes = logits.shape[1]
    target = F.one_hot(gt_classes, num_classes + 1)[:, :-1].float()
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, weight=chosen, reduction="sum")
    return loss / max(len(gt_classes), 1)


@torch.no_grad()
def federated_classes(gt_classes: Tensor, weights: Tensor, count: int) -> Tensor:
    """Choose the classes in a batch, and fill up with others drawn by their weights.

    Where not all objects of every class are annotated, a region may be an object of any class that nobody looked for.
    Fewer classes mean fewer such wrong negatives.

    Args:
        gt_classes: (R,) int64 in [0, K]; K is background.
        weights: (K,) at least 0; a class is drawn, without replacement, in proportion to it.
        count: Number of classes wanted; more are chosen if the batch holds more.

    Returns:
        (K,) float32, 1 for the chosen classes.

    Source: Zhou, Koltun, Kraehenbuehl, "Probabilistic two-stage detection", 2021, section 4.
    """
    num_classes = len(weights)
    present = weights.new_zeros(num_classes + 1, dtype=torch.float32).scatter(0, gt_classes, 1.0)[:-1]
    # The highest of log weight + Gumbel noise are a draw without replacement; classes in the batch come first.
    keys = weights.float().log() - torch.empty_like(present).exponential_().log()
    drawn = keys.masked_fill(present > 0, torch.inf).topk(min(count, num_classes)).indices
    return present.scatter(0, drawn, 1.0)
