"""What all ROI heads share: which proposals the losses look at, and what they are compared with.

Axes: N proposals of one image, K classes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hookline.modeling._checks import check_fraction, check_positive
from hookline.modeling.matcher import Matcher
from hookline.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from hookline.modeling.sampling import subsample_labels
from hookline.structures import ImageList, Instances, pairwise_iou


def select_foreground_proposals(proposals: Sequence[Instances], bg_label: int) -> tuple[list[Instances], list[Tensor]]:
    """Keep the proposals that were matched with an object.

    Args:
        proposals: `gt_classes` of each image.
        bg_label: The class of background.

    Returns:
        The foreground of each image, and the (N,) bool masks that chose it.
    """
    masks = [(one.gt_classes != -1) & (one.gt_classes != bg_label) for one in proposals]
    return [one[mask.nonzero()[:, 0]] for one, mask in zip(proposals, masks, strict=True)], masks


class ROIHeads(nn.Module):
    """Matching and sampling of proposals, which all ROI heads share.

    Args:
        num_classes: Number of classes K; background is class K.
        batch_size_per_image: Proposals of each image that the losses look at.
        positive_fraction: Largest share of foreground among them.
        proposal_matcher: Labels proposals by their IoU with ground truths.
        proposal_append_gt: Whether ground truth boxes join the proposals in training.

    Source: Girshick, "Fast R-CNN", 2015, section 2.3, mini-batch sampling.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, batch_size_per_image=batch_size_per_image)
        check_fraction(positive_fraction=positive_fraction)
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Match proposals with ground truths and draw those that the losses look at.

        Args:
            proposals: `proposal_boxes` of each image.
            targets: `gt_boxes` and `gt_classes` of each image, perhaps more.

        Returns:
            For each image the sample, foreground first: the proposals' fields, `gt_classes` (K for background),
            `gt_boxes` (the proposal itself where there is no object) and `gt_index`, the place of the matched ground
            truth in its image. Masks and other heavy fields are fetched by `attach_targets`, for foreground only.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        return [self._label_and_sample(*pair) for pair in zip(proposals, targets, strict=True)]

    def _label_and_sample(self, proposals: Instances, target: Instances) -> Instances:
        overlap = pairwise_iou(target.gt_boxes, proposals.proposal_boxes)
        matches, labels = self.proposal_matcher(overlap)
        if len(target):
            # Detectron2's convention: background is class K, ignored proposals are -1.
            classes = (
                target.gt_classes[matches].masked_fill(labels == 0, self.num_classes).masked_fill(labels == -1, -1)
            )
        else:
            classes = torch.full_like(matches, self.num_classes)
        chosen = torch.cat(
            subsample_labels(classes, self.batch_size_per_image, self.positive_fraction, self.num_classes)
        )
        sample = proposals[chosen]
        sample.gt_classes = classes[chosen]
        sample.gt_index = matches[chosen]
        sample.gt_boxes = target.gt_boxes[sample.gt_index] if len(target) else sample.proposal_boxes.clone()
        return sample

    def attach_targets(self, proposals: Sequence[Instances], targets: Sequence[Instances]) -> list[Instances]:
        """Keep the foreground, and add all further `gt_*` fields of the matched ground truths to it.

        Args:
            proposals: What `label_and_sample_proposals` gave.
            targets: The ground truths that it was given.

        Returns:
            The foreground of each image.
        """
        foreground, _ = select_foreground_proposals(proposals, self.num_classes)
        for one, target in zip(foreground, targets, strict=True):
            for name, value in target[one.gt_index].get_fields().items():
                if name.startswith("gt_") and not one.has(name):
                    one.set(name, value)
        return foreground

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Compute the losses in training, or detections in evaluation.

        Args:
            images: The batch.
            features: Feature maps by name.
            proposals: `proposal_boxes` of each image.
            targets: `gt_*` of each image, in training.

        Returns:
            Sampled proposals and losses in training; detections and no losses in evaluation.

        Raises:
            NotImplementedError: In this base class.
        """
        raise NotImplementedError
