"""Assignment of ground truths to predictions.

Axes: M ground truths, N predictions (anchors or proposals).
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hookline.modeling._checks import check_choice


class Matcher:
    """Match every prediction with its best ground truth, and label the match by its quality.

    A prediction whose best quality lies in `[thresholds[i - 1], thresholds[i])` gets `labels[i]`.

    Args:
        thresholds: Rising boundaries above 0 between the labels.
        labels: 1 foreground, 0 background, -1 ignored; one more than thresholds.
        allow_low_quality_matches: Whether a ground truth also gets the predictions that overlap it best, however
            badly. One that nothing overlaps gets none.

    Raises:
        ValueError: If thresholds do not rise from above 0, or the numbers do not fit.

    Source: Ren et al., "Faster R-CNN", 2015, section 3.1.2, rules (i) and (ii).
    """

    def __init__(
        self, thresholds: Sequence[float], labels: Sequence[int], allow_low_quality_matches: bool = False
    ) -> None:
        rising = [0.0, *thresholds]
        if not all(low < high for low, high in itertools.pairwise(rising)) or math.isinf(rising[-1]):
            raise ValueError(f"thresholds={list(thresholds)} must be finite and rise from above 0.")
        if len(labels) != len(thresholds) + 1:
            raise ValueError(f"labels={list(labels)} must be one more than thresholds={list(thresholds)}.")
        for label in labels:
            check_choice("labels", label, (-1, 0, 1))
        self.thresholds = list(thresholds)
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Match.

        Args:
            match_quality_matrix: (M, N) qualities of at least 0, such as IoU.

        Returns:
            (N,) int64 index of the ground truth for each prediction, and (N,) int8 labels. Without ground truths
            all indices are 0 and all labels are the lowest quality's.

        Raises:
            ValueError: If the matrix is not two-dimensional.
        """
        quality = match_quality_matrix
        if quality.dim() != 2:
            raise ValueError(f"match_quality_matrix must be (M, N), got {tuple(quality.shape)}.")
        num_predictions = quality.shape[1]
        if quality.numel() == 0:
            matches = quality.new_zeros((num_predictions,), dtype=torch.int64)
            return matches, quality.new_full((num_predictions,), self.labels[0], dtype=torch.int8)
        best, matches = quality.max(dim=0)
        match_labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds, self.labels[1:], strict=True):
            match_labels.masked_fill_(best >= threshold, label)
        if self.allow_low_quality_matches:
            best_of_truth = quality.amax(dim=1, keepdim=True)
            is_best = (quality == best_of_truth) & (best_of_truth > 0)
            match_labels.masked_fill_(is_best.any(dim=0), 1)
        return matches, match_labels
