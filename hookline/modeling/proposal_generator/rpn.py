"""Region proposal network.

Axes: B images, L levels, A anchors of all levels of one image, P and S samples of foreground and background.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hookline.modeling._checks import check_fraction, check_positive, weights_by_name
from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.box_regression import Box2BoxTransform, box_regression_loss, check_box_loss_type
from hookline.modeling.layers import cat
from hookline.modeling.matcher import Matcher
from hookline.modeling.proposal_generator.proposal_utils import select_proposals, top_anchors
from hookline.modeling.sampling import FixedSample, sample_batch
from hookline.structures import Boxes, ImageList, Instances, pairwise_iou

_LOSSES = ("loss_rpn_cls", "loss_rpn_loc")


class RPN(nn.Module):
    """Propose boxes that may hold an object of any class.

    Args:
        in_features: Names of the feature maps to use, in the order of the anchor generator's levels.
        head: From feature maps to logits and offsets, such as `StandardRPNHead`.
        anchor_generator: Places the anchors.
        anchor_matcher: Labels anchors by their IoU with ground truths.
        box2box_transform: Coding of boxes relative to anchors.
        batch_size_per_image: Anchors of each image that the loss looks at.
        positive_fraction: Largest share of foreground among them.
        pre_nms_topk: Boxes kept of each level before suppression, in training and in evaluation.
        post_nms_topk: Boxes kept of each image after it, in training and in evaluation.
        nms_thresh: IoU from which the lower-scored of two boxes of a level is dropped.
        min_box_size: Pixels that both sides of a proposal must exceed.
        anchor_boundary_thresh: If not negative, anchors that reach further out of the image (pixels) are ignored.
        loss_weight: Factor of both losses, or factors by name: `loss_rpn_cls`, `loss_rpn_loc`.
        box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
        smooth_l1_beta: Offset at which smooth L1 turns from quadratic to linear.

    Source: Ren et al., "Faster R-CNN", 2015, section 3.1.
    """

    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: DefaultAnchorGenerator,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | Mapping[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        super().__init__()
        check_positive(batch_size_per_image=batch_size_per_image)
        check_fraction(positive_fraction=positive_fraction, nms_thresh=nms_thresh)
        check_box_loss_type(box_reg_loss_type)
        _check_levels(in_features, head, anchor_generator)
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.pre_nms_topk = _by_mode("pre_nms_topk", pre_nms_topk)
        self.post_nms_topk = _by_mode("post_nms_topk", post_nms_topk)
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.loss_weight = weights_by_name(loss_weight, _LOSSES)
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    def forward(
        self,
        images: ImageList,
        features: Mapping[str, Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Propose boxes, and compute the losses in training.

        Args:
            images: The batch; only its sizes are read.
            features: Feature maps by name, (B, C, H, W).
            gt_instances: `gt_boxes` of each image, in training.

        Returns:
            For each image `proposal_boxes` and `objectness_logits` by falling score, without gradients; and the
            losses by name, in training.

        Raises:
            ValueError: If there are no ground truths in training.
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        scores, offsets = self.rpn_head(maps)
        logits = [score.permute(0, 2, 3, 1).flatten(1) for score in scores]
        box_dim = self.anchor_generator.box_dim
        deltas = [offset.permute(0, 2, 3, 1).unflatten(3, (-1, box_dim)).flatten(1, 3) for offset in offsets]
        losses: dict[str, Tensor] = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("RPN needs gt_instances in training; did the mapper give `instances`?")
            losses = self.losses(anchors, logits, deltas, gt_instances)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_anchors(self, anchors: Boxes, gt_instances: Sequence[Instances]) -> tuple[Tensor, Tensor]:
        """Match the anchors of every image with its ground truths.

        Args:
            anchors: Those of all levels.
            gt_instances: `gt_boxes` of each image.

        Returns:
            (B, A) int8 labels: 1 foreground, 0 background, -1 ignored; and the (B, A) int64 index of the matched
            ground truth in its image.
        """
        labels, matches = [], []
        for target in gt_instances:
            match, label = self.anchor_matcher(pairwise_iou(target.gt_boxes, anchors))
            if self.anchor_boundary_thresh >= 0:
                inside = anchors.inside_box(target.image_size, self.anchor_boundary_thresh)  # type: ignore[arg-type]
                label = label.masked_fill(~inside, -1)
            labels.append(label)
            matches.append(match)
        return torch.stack(labels), torch.stack(matches)

    def losses(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        gt_instances: Sequence[Instances],
    ) -> dict[str, Tensor]:
        """Compute the losses on a random sample of the anchors, in float32.

        `loss_rpn_cls` is the sum of `-log sigmoid(+-logit)` over the sample, `loss_rpn_loc` the box regression loss
        of its foreground; both are divided by B * batch_size_per_image.

        Args:
            anchors: Those of each level.
            pred_objectness_logits: (B, A_l) of each level.
            pred_anchor_deltas: (B, A_l, 4) of each level.
            gt_instances: `gt_boxes` of each image.

        Returns:
            Scalars by name.

        Source: Ren et al., "Faster R-CNN", 2015, equation 1.
        """
        all_anchors = Boxes.cat(list(anchors))
        labels, matches = self.label_anchors(all_anchors, gt_instances)
        sample = sample_batch(labels, self.batch_size_per_image, self.positive_fraction)
        logits = cat(pred_objectness_logits, 1)
        losses = {
            "loss_rpn_cls": _objectness_loss(logits, sample),
            "loss_rpn_loc": self._localisation_loss(
                all_anchors.tensor, cat(pred_anchor_deltas, 1), gt_instances, matches, sample
            ),
        }
        count = self.batch_size_per_image * len(gt_instances)
        return {name: loss * (self.loss_weight[name] / count) for name, loss in losses.items()}

    def _localisation_loss(
        self,
        anchors: Tensor,
        deltas: Tensor,
        gt_instances: Sequence[Instances],
        matches: Tensor,
        sample: FixedSample,
    ) -> Tensor:
        place = sample.positive[..., None].expand(-1, -1, deltas.shape[-1])
        # Images without objects have no foreground: what stands in for their ground truths is never looked at.
        gt_boxes = [F.pad(target.gt_boxes.tensor, (0, 0, 0, 1)) for target in gt_instances]
        targets = pad_sequence(gt_boxes, batch_first=True)
        matched = matches.gather(1, sample.positive)[..., None].expand(-1, -1, 4)
        return box_regression_loss(
            deltas.gather(1, place).flatten(0, 1),
            anchors[sample.positive].flatten(0, 1),
            targets.gather(1, matched).flatten(0, 1),
            sample.positive_used.flatten(),
            box2box_transform=self.box2box_transform,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: Sequence[Boxes],
        pred_objectness_logits: Sequence[Tensor],
        pred_anchor_deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Decode the best anchors of each level and select among them; see `find_top_rpn_proposals`.

        Args:
            anchors: Those of each level.
            pred_objectness_logits: (B, A_l) of each level.
            pred_anchor_deltas: (B, A_l, 4) of each level.
            image_sizes: (height, width) of each image in pixels.

        Returns:
            For each image `proposal_boxes` and `objectness_logits`, by falling score.
        """
        boxes, scores = [], []
        for level, logits, deltas in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True):
            # Decoding after the choice spares most of it.
            score, index = top_anchors(logits, self.pre_nms_topk[self.training])
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, deltas.shape[-1])).flatten(0, 1)
            decoded = self.box2box_transform.apply_deltas(chosen, level.tensor[index].flatten(0, 1))
            boxes.append(decoded.view(*index.shape, 4))
            scores.append(score)
        return select_proposals(
            boxes, scores, image_sizes, self.nms_thresh, self.post_nms_topk[self.training], self.min_box_size
        )


def _by_mode(name: str, values: Sequence[int]) -> dict[bool, int]:
    """Read a pair of numbers, for training (True) and evaluation.

    Raises:
        ValueError: If there are not two.
    """
    if len(values) != 2:
        raise ValueError(f"{name}={list(values)} must be two numbers: in training, in evaluation.")
    return {True: int(values[0]), False: int(values[1])}


def _check_levels(in_features: Sequence[str], head: nn.Module, generator: nn.Module) -> None:
    """Refuse parts that do not fit together; those of other classes may not tell their number of anchors.

    Raises:
        ValueError: If the numbers of levels, or of anchors per cell, differ.
    """
    anchors = getattr(generator, "num_anchors", None)
    if anchors is None:
        return
    if len(anchors) != len(in_features):
        raise ValueError(f"in_features has {len(in_features)} levels, anchor_generator {len(anchors)}.")
    wanted = getattr(head, "num_anchors", None)
    if wanted is not None and set(anchors) != {wanted}:
        raise ValueError(f"head.num_anchors={wanted}, but anchor_generator places {anchors} on a cell, by level.")


def _objectness_loss(logits: Tensor, sample: FixedSample) -> Tensor:
    """Sum the binary cross-entropy of (B, A) logits over the sample."""
    positive = F.softplus(-logits.gather(1, sample.positive).float())
    negative = F.softplus(logits.gather(1, sample.negative).float())
    return (positive * sample.positive_used).sum() + (negative * sample.negative_used).sum()
