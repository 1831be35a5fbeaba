"""Random choice of the predictions that a loss looks at."""

from typing import NamedTuple

import torch
from torch import Tensor

from hookline.modeling.layers import nonzero_tuple


def subsample_labels(
    labels: Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[Tensor, Tensor]:
    """Draw foreground and background samples without replacement.

    At most `num_samples * positive_fraction` are foreground; background fills up as far as it lasts.

    Args:
        labels: (N,) -1 ignored, `bg_label` background, all else foreground.
        num_samples: How many to draw.
        positive_fraction: Largest share of foreground, in [0, 1].
        bg_label: The label of background.

    Returns:
        int64 indices of the foreground samples and of the background samples, in random order.
    """
    positive = nonzero_tuple((labels != -1) & (labels != bg_label))[0]
    negative = nonzero_tuple(labels == bg_label)[0]
    num_positive = min(positive.numel(), int(num_samples * positive_fraction))
    num_negative = min(negative.numel(), num_samples - num_positive)
    return _draw(positive, num_positive), _draw(negative, num_negative)


def _draw(indices: Tensor, count: int) -> Tensor:
    return indices[torch.randperm(indices.numel(), device=indices.device)[:count]]


class FixedSample(NamedTuple):
    """Samples of a batch in tensors whose shapes do not depend on how many were found.

    Attributes:
        positive: (B, P) int64 indices of foreground samples.
        positive_used: (B, P) bool, whether the place holds a sample.
        negative: (B, S) int64 indices of background samples.
        negative_used: (B, S) bool, whether the place holds a sample.
    """

    positive: Tensor
    positive_used: Tensor
    negative: Tensor
    negative_used: Tensor


def sample_batch(labels: Tensor, num_samples: int, positive_fraction: float) -> FixedSample:
    """Draw as `subsample_labels` does, for a whole batch, without waiting for the device.

    Args:
        labels: (B, N) int8: -1 ignored, 0 background, 1 foreground.
        num_samples: How many to draw from each row.
        positive_fraction: Largest share of foreground, in [0, 1].

    Returns:
        The samples, with P = num_samples * positive_fraction and S = num_samples places, or N if that is less.
    """
    keys = torch.rand(labels.shape, device=labels.device)
    positive_places = min(int(num_samples * positive_fraction), labels.shape[1])
    positive_key, positive = keys.masked_fill(labels != 1, -1).topk(positive_places)
    negative_key, negative = keys.masked_fill(labels != 0, -1).topk(min(num_samples, labels.shape[1]))
    positive_used = positive_key >= 0
    room = num_samples - positive_used.sum(1, keepdim=True)
    place = torch.arange(negative.shape[1], device=labels.device)
    return FixedSample(positive, positive_used, negative, (negative_key >= 0) & (place < room))
