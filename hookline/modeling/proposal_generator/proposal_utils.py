"""Selection of proposals from scored boxes.

Axes: B images, L levels, A anchors of one level, T boxes of all levels of one image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hookline.modeling.layers import batched_nms, cat
from hookline.structures import Boxes, Instances


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """Keep the best boxes of each level, suppress doubles within a level, and keep the best of all levels.

    Boxes are clipped to their image; those that are not finite or too small are dropped.

    Args:
        proposals: (B, A, 4) decoded boxes, XYXY, of each level.
        pred_objectness_logits: (B, A) scores of each level.
        image_sizes: (height, width) of each image in pixels.
        nms_thresh: IoU from which the lower-scored of two boxes of a level is dropped.
        pre_nms_topk: Boxes kept of each level and image before suppression.
        post_nms_topk: Boxes kept of each image after it.
        min_box_size: Pixels that both sides must exceed.

    Returns:
        For each image, `proposal_boxes` and `objectness_logits`, by falling score.
    """
    chosen = [top_anchors(scores, pre_nms_topk) for scores in pred_objectness_logits]
    boxes = [
        level.gather(1, index[..., None].expand(-1, -1, 4)) for level, (_, index) in zip(proposals, chosen, strict=True)
    ]
    return select_proposals(
        boxes, [scores for scores, _ in chosen], image_sizes, nms_thresh, post_nms_topk, min_box_size
    )


def top_anchors(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` highest of (B, A) scores in each row, or all, with their int64 indices, both falling."""
    return scores.topk(min(count, scores.shape[1]), dim=1)


def select_proposals(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    post_nms_topk: int,
    min_box_size: float,
) -> list[Instances]:
    """Do the second half of `find_top_rpn_proposals`: all that follows the choice in each level.

    Args:
        boxes: (B, k, 4) XYXY of each level.
        scores: (B, k) of each level.
        image_sizes: (height, width) of each image in pixels.
        nms_thresh: IoU from which the lower-scored of two boxes of a level is dropped.
        post_nms_topk: Boxes kept of each image.
        min_box_size: Pixels that both sides must exceed.

    Returns:
        For each image, `proposal_boxes` and `objectness_logits`, by falling score.
    """
    device = boxes[0].device
    counts = [level.shape[1] for level in scores]
    level = torch.cat([torch.full((count,), index, device=device) for index, count in enumerate(counts)])
    all_scores = cat(scores, 1).float()
    limits = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=torch.float32)
    limits = limits.to(device, non_blocking=True)[:, None]
    all_boxes = cat(boxes, 1).float().clamp(min=0).minimum(limits)
    size = all_boxes[..., 2:] - all_boxes[..., :2]
    # NaN compares as false, so boxes that are not finite go too.
    valid = (size > min_box_size).all(-1) & all_scores.isfinite()
    results = []
    for image_size, own_boxes, own_scores, own_valid in zip(image_sizes, all_boxes, all_scores, valid, strict=True):
        index = own_valid.nonzero()[:, 0]
        own_boxes, own_scores = own_boxes[index], own_scores[index]
        keep = batched_nms(own_boxes, own_scores, level[index], nms_thresh)[:post_nms_topk]
        results.append(Instances(image_size, proposal_boxes=Boxes(own_boxes[keep]), objectness_logits=own_scores[keep]))
    return results


def add_ground_truth_to_proposals(targets: Sequence[Instances], proposals: Sequence[Instances]) -> list[Instances]:
    """Append the ground truth boxes to the proposals, so that there is foreground from the first step on.

    Args:
        targets: `gt_boxes` of each image.
        proposals: `proposal_boxes` and perhaps `objectness_logits` of each image.

    Returns:
        New instances; ground truths have the logit of a probability of almost 1. Other fields are gone.
    """
    results = []
    for target, proposal in zip(targets, proposals, strict=True):
        gt_boxes = target.gt_boxes.to(proposal.proposal_boxes.device)
        joined = Instances(proposal.image_size, proposal_boxes=Boxes.cat([proposal.proposal_boxes, gt_boxes]))
        if proposal.has("objectness_logits"):
            logits = proposal.objectness_logits
            joined.objectness_logits = torch.cat([logits, logits.new_full((len(gt_boxes),), _SURE_LOGIT)])
        results.append(joined)
    return results


# log(p / (1 - p)) of p = 1 - 1e-10.
_SURE_LOGIT = 23.025850929840455
