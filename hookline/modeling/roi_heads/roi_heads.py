"""ROI heads: everything that happens for single regions.

Axes: N proposals of one image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hookline.modeling._checks import check_together
from hookline.modeling.matcher import Matcher
from hookline.modeling.poolers import ROIPooler
from hookline.modeling.roi_heads.base import ROIHeads, select_foreground_proposals
from hookline.structures import Boxes, ImageList, Instances

__all__ = ["ROIHeads", "StandardROIHeads", "select_foreground_proposals"]


class StandardROIHeads(ROIHeads):
    """Box head, and mask and keypoint heads where given, each with its own pooling.

    In evaluation masks and keypoints are predicted on the detected boxes.

    Args:
        box_in_features: Feature maps for boxes, in the order of the pooler's scales.
        box_pooler: Pools them.
        box_head: Trunk of the box head.
        box_predictor: Classes and boxes from the trunk's output, such as `FastRCNNOutputLayers`.
        mask_in_features: Feature maps for masks.
        mask_pooler: Pools them; None gives the mask head the whole feature maps.
        mask_head: Predicts masks.
        keypoint_in_features: Feature maps for keypoints.
        keypoint_pooler: Pools them; None gives the keypoint head the whole feature maps.
        keypoint_head: Predicts keypoints.
        train_on_pred_boxes: Whether masks and keypoints are trained on the box head's output instead of proposals.
        num_classes: K, see `ROIHeads`, as for the arguments below.
        batch_size_per_image: Proposals that are sampled for training.
        positive_fraction: Largest share of foreground among them.
        proposal_matcher: Matches proposals to ground truth.
        proposal_append_gt: Whether ground-truth boxes are proposals too in training.

    Raises:
        ValueError: If a head is given without its feature maps, or the other way round, or numbers of classes differ.

    Source: He et al., "Mask R-CNN", 2017, section 3.
    """

    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
        keypoint_in_features: Sequence[str] | None = None,
        keypoint_pooler: ROIPooler | None = None,
        keypoint_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            batch_size_per_image=batch_size_per_image,
            positive_fraction=positive_fraction,
            proposal_matcher=proposal_matcher,
            proposal_append_gt=proposal_append_gt,
        )
        own_classes = getattr(box_predictor, "num_classes", self.num_classes)
        if own_classes != self.num_classes:
            raise ValueError(f"num_classes={self.num_classes}, but box_predictor.num_classes={own_classes}.")
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = check_together(mask_in_features=mask_in_features, mask_head=mask_head)
        mask_classes = getattr(mask_head, "num_classes", 1)
        if mask_classes not in (1, self.num_classes):
            raise ValueError(f"num_classes={self.num_classes}, but mask_head.num_classes={mask_classes}.")
        if self.mask_on:
            self.mask_in_features = list(mask_in_features or ())
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head
        self.keypoint_on = check_together(keypoint_in_features=keypoint_in_features, keypoint_head=keypoint_head)
        if self.keypoint_on:
            self.keypoint_in_features = list(keypoint_in_features or ())
            self.keypoint_pooler = keypoint_pooler
            self.keypoint_head = keypoint_head
        self.train_on_pred_boxes = train_on_pred_boxes

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Compute the losses in training, or detections in evaluation.

        Args:
            images: The batch; not read.
            features: Feature maps by name.
            proposals: `proposal_boxes` of each image.
            targets: `gt_boxes`, `gt_classes`, and `gt_masks` and `gt_keypoints` for those heads, in training.

        Returns:
            Sampled proposals and losses in training; detections and no losses in evaluation.

        Raises:
            ValueError: If there are no targets in training.
        """
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        if targets is None:
            raise ValueError("ROI heads need targets in training; did the mapper give `instances`?")
        sample = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_box(features, sample)
        if self.mask_on or self.keypoint_on:
            foreground = self.attach_targets(sample, targets)
            losses.update(self._forward_mask(features, foreground))
            losses.update(self._forward_keypoint(features, foreground))
        return sample, losses

    def forward_with_given_boxes(self, features: Mapping[str, Tensor], instances: list[Instances]) -> list[Instances]:
        """Predict masks and keypoints of boxes that are known.

        Args:
            features: Feature maps by name.
            instances: `pred_boxes` and `pred_classes` of each image.

        Returns:
            The instances, with `pred_masks` and `pred_keypoints` where there are such heads.

        Raises:
            ValueError: In training mode.
        """
        if self.training:
            raise ValueError("forward_with_given_boxes predicts: call model.eval() first.")
        instances = self._forward_mask(features, instances)
        return self._forward_keypoint(features, instances)

    def _forward_box(self, features: Mapping[str, Tensor], proposals: list[Instances]) -> Any:
        """Return the box losses of sampled proposals in training, or detections."""
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [one.proposal_boxes for one in proposals])
        predictions = self.box_predictor(self.box_head(pooled))
        if not self.training:
            return self.box_predictor.inference(predictions, proposals)[0]  # type: ignore[operator]
        losses = self.box_predictor.losses(predictions, proposals)  # type: ignore[operator]
        if self.train_on_pred_boxes:
            with torch.no_grad():
                boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)  # type: ignore[operator]
                for one, own in zip(proposals, boxes, strict=True):
                    one.proposal_boxes = Boxes(own)
        return losses

    def _forward_mask(self, features: Mapping[str, Tensor], instances: list[Instances]) -> Any:
        """Return the mask loss of foreground proposals in training, or the instances with masks."""
        if not self.mask_on:
            return {} if self.training else instances
        assert self.mask_head is not None
        return self.mask_head(self._pool(features, self.mask_in_features, self.mask_pooler, instances), instances)

    def _forward_keypoint(self, features: Mapping[str, Tensor], instances: list[Instances]) -> Any:
        """Return the keypoint loss of foreground proposals in training, or the instances with keypoints."""
        if not self.keypoint_on:
            return {} if self.training else instances
        assert self.keypoint_head is not None
        if self.training:
            instances = [one[_has_visible_keypoint(one)] if len(one) else one for one in instances]
        pooled = self._pool(features, self.keypoint_in_features, self.keypoint_pooler, instances)
        return self.keypoint_head(pooled, instances)

    def _pool(
        self,
        features: Mapping[str, Tensor],
        names: Sequence[str],
        pooler: ROIPooler | None,
        instances: Sequence[Instances],
    ) -> Any:
        if pooler is None:
            return {name: features[name] for name in names}
        boxes = [one.proposal_boxes if self.training else one.pred_boxes for one in instances]
        return pooler([features[name] for name in names], boxes)


def _has_visible_keypoint(proposals: Instances) -> Tensor:
    """Return (N,) whether a labelled keypoint of the matched ground truth lies in the proposal."""
    points = proposals.gt_keypoints.tensor
    boxes = proposals.proposal_boxes.tensor[:, None]
    inside = (points[..., :2] >= boxes[..., :2]) & (points[..., :2] <= boxes[..., 2:])
    return (inside.all(-1) & (points[..., 2] >= 1)).any(-1)
