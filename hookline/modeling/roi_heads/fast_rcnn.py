"""Classes and boxes of proposals: predictor, losses, inference.

Axes: B images, R regions of all images, N regions of one image, K classes.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hookline.modeling._checks import check_fraction, check_positive, weights_by_name
from hookline.modeling.box_regression import Box2BoxTransform, box_regression_loss, check_box_loss_type
from hookline.modeling.layers import ShapeSpec, batched_nms, cat, cross_entropy
from hookline.modeling.roi_heads.class_losses import federated_classes, sigmoid_cross_entropy
from hookline.structures import Boxes, Instances

_LOSSES = ("loss_cls", "loss_box_reg")


def fast_rcnn_inference(
    boxes: Sequence[Tensor],
    scores: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[Tensor]]:
    """Turn scored boxes into detections, image by image.

    Args:
        boxes: (N, K * 4) or (N, 4) XYXY of each image.
        scores: (N, K + 1) of each image; the last is background's.
        image_shapes: (height, width) of each image in pixels.
        score_thresh: Score that a detection must exceed.
        nms_thresh: IoU from which the lower-scored of two boxes of a class is dropped.
        topk_per_image: Detections kept of each image; negative for all.

    Returns:
        For each image `pred_boxes`, `scores`, `pred_classes` by falling score, and the (N',) int64 index of the
        region that each detection comes from.
    """
    results = [
        _detect_in_image(image_boxes, image_scores, shape, score_thresh, nms_thresh, topk_per_image)
        for image_boxes, image_scores, shape in zip(boxes, scores, image_shapes, strict=True)
    ]
    return [instances for instances, _ in results], [index for _, index in results]


def _detect_in_image(
    boxes: Tensor, scores: Tensor, image_shape: tuple[int, int], score_thresh: float, nms_thresh: float, topk: int
) -> tuple[Instances, Tensor]:
    scores = scores[:, :-1].float()
    num_box_sets = boxes.shape[1] // 4
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_shape)
    per_class = clipped.tensor.view(-1, num_box_sets, 4)
    # A diverged model gives NaN; a region with one is left out.
    finite = per_class.isfinite().all(2).all(1) & scores.isfinite().all(1)
    region, classes = ((scores > score_thresh) & finite[:, None]).nonzero(as_tuple=True)
    kept_scores = scores[region, classes]
    kept_boxes = per_class[region, classes if num_box_sets > 1 else torch.zeros_like(classes)]
    keep = batched_nms(kept_boxes, kept_scores, classes, nms_thresh)
    keep = keep[:topk] if topk >= 0 else keep
    instances = Instances(
        image_shape, pred_boxes=Boxes(kept_boxes[keep]), scores=kept_scores[keep], pred_classes=classes[keep]
    )
    return instances, region[keep]


class FastRCNNOutputLayers(nn.Module):
    """Predict the class of each region, and its box for every class.

    Args:
        input_shape: Shape of a region's features; they are flattened.
        box2box_transform: Coding of boxes relative to proposals.
        num_classes: Number of classes K; background is class K.
        test_score_thresh: Score that a detection must exceed.
        test_nms_thresh: IoU from which the lower-scored of two boxes of a class is dropped.
        test_topk_per_image: Detections kept of each image; negative for all.
        cls_agnostic_bbox_reg: Whether all classes share one box.
        smooth_l1_beta: Offset at which smooth L1 turns from quadratic to linear.
        box_reg_loss_type: "smooth_l1", "giou", "diou" or "ciou".
        loss_weight: Factor of both losses, or factors by name: `loss_cls`, `loss_box_reg`.
        use_sigmoid_ce: Whether classes are scored one by one (sigmoid) instead of against each other (softmax).
        use_fed_loss: Whether the loss looks at a sample of the classes only; needs `use_sigmoid_ce`.
        get_fed_loss_cls_weights: Gives the (K,) weights by which classes are drawn.
        fed_loss_num_classes: Classes that the loss looks at; drawn ones join those in the batch.

    Raises:
        ValueError: If arguments contradict each other or are out of range.

    Source: Girshick, "Fast R-CNN", 2015, sections 2.1 and 2.3; Zhou et al., "Probabilistic two-stage detection",
    2021, section 4 (federated loss).
    """

    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | Mapping[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
        get_fed_loss_cls_weights: Callable[[], Tensor] | None = None,
        fed_loss_num_classes: int = 50,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        check_fraction(test_score_thresh=test_score_thresh, test_nms_thresh=test_nms_thresh)
        check_box_loss_type(box_reg_loss_type)
        features = (input_shape.channels or 0) * (input_shape.width or 1) * (input_shape.height or 1)
        check_positive(**{"input_shape.channels": features})
        self.num_classes = num_classes
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.use_sigmoid_ce = use_sigmoid_ce
        self.loss_weight = weights_by_name(loss_weight, _LOSSES)
        self._num_box_sets = 1 if cls_agnostic_bbox_reg else num_classes
        self.cls_score = nn.Linear(features, num_classes + 1)
        self.bbox_pred = nn.Linear(features, self._num_box_sets * 4)
        self._initialise(use_sigmoid_ce)
        self.use_fed_loss = use_fed_loss
        if use_fed_loss:
            if not use_sigmoid_ce or get_fed_loss_cls_weights is None:
                raise ValueError("use_fed_loss=True needs use_sigmoid_ce=True and get_fed_loss_cls_weights.")
            self.fed_loss_num_classes = fed_loss_num_classes
            weights = get_fed_loss_cls_weights()
            if weights.shape != (num_classes,):
                raise ValueError(f"get_fed_loss_cls_weights gave {tuple(weights.shape)} for num_classes={num_classes}.")
            self.register_buffer("fed_loss_cls_weights", weights, persistent=False)

    def _initialise(self, sigmoid: bool) -> None:
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.bbox_pred.bias)
        # With one sigmoid a class, start where every class has probability 0.01, as Focal Loss does.
        nn.init.constant_(self.cls_score.bias, -math.log(99) if sigmoid else 0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            x: (R, ...) features of regions.

        Returns:
            (R, K + 1) class logits, and (R, K * 4) offsets, or (R, 4) where classes share a box.
        """
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> dict[str, Tensor]:
        """Compute the losses in float32.

        `loss_cls` is the mean over regions of `-log softmax(logits)[class]`; `loss_box_reg` the sum over foreground
        regions of the regression loss of the true class's box, divided by the number of all regions, so that every
        foreground region weighs the same in any batch.

        Args:
            predictions: What `forward` gave for the regions of all images.
            proposals: `proposal_boxes`, `gt_classes` (K for background) and `gt_boxes` of each image.

        Returns:
            Scalars by name; zero, and connected to the graph, without regions.

        Source: Girshick, "Fast R-CNN", 2015, equation 1.
        """
        logits, deltas = predictions
        classes = cat([instances.gt_classes for instances in proposals])
        boxes = cat([instances.proposal_boxes.tensor for instances in proposals])
        gt_boxes = cat([instances.gt_boxes.tensor for instances in proposals])
        losses = {
            "loss_cls": self.class_loss(logits, classes),
            "loss_box_reg": self.box_reg_loss(boxes, gt_boxes, deltas, classes),
        }
        return {name: loss * self.loss_weight[name] for name, loss in losses.items()}

    def box_reg_loss(self, proposal_boxes: Tensor, gt_boxes: Tensor, pred_deltas: Tensor, gt_classes: Tensor) -> Tensor:
        """Compute the regression loss of the foreground, divided by the number of regions.

        Args:
            proposal_boxes: (R, 4) XYXY.
            gt_boxes: (R, 4) XYXY; anything for background.
            pred_deltas: (R, K * 4) or (R, 4) offsets.
            gt_classes: (R,) int64 in [0, K], K for background.

        Returns:
            A scalar.
        """
        foreground = gt_classes < self.num_classes
        own_class = gt_classes.clamp(max=self._num_box_sets - 1)[:, None, None].expand(-1, 1, 4)
        own = pred_deltas.unflatten(1, (self._num_box_sets, 4)).gather(1, own_class).squeeze(1)
        total = box_regression_loss(
            own,
            proposal_boxes,
            gt_boxes,
            foreground,
            box2box_transform=self.box2box_transform,
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        return total / max(gt_classes.numel(), 1)

    def class_loss(self, pred_class_logits: Tensor, gt_classes: Tensor) -> Tensor:
        """Compute the classification loss: softmax, sigmoid, or sigmoid on a sample of the classes.

        Args:
            pred_class_logits: (R, K + 1).
            gt_classes: (R,) int64 in [0, K], K for background.

        Returns:
            A scalar.
        """
        if not self.use_sigmoid_ce:
            return cross_entropy(pred_class_logits, gt_classes)
        chosen = None
        if self.use_fed_loss:
            chosen = federated_classes(gt_classes, self.fed_loss_cls_weights, self.fed_loss_num_classes)  # type: ignore[arg-type]
        return sigmoid_cross_entropy(pred_class_logits[:, :-1], gt_classes, chosen)

    def inference(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[Tensor]]:
        """Turn predictions into detections; see `fast_rcnn_inference`.

        Args:
            predictions: What `forward` gave for the regions of all images.
            proposals: `proposal_boxes` of each image.

        Returns:
            Detections of each image, and the index of the proposal that each comes from.
        """
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [instances.image_size for instances in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> tuple[Tensor, ...]:
        """Decode the boxes.

        Args:
            predictions: What `forward` gave for the regions of all images.
            proposals: `proposal_boxes` of each image.

        Returns:
            (N, K * 4) or (N, 4) XYXY of each image, not clipped.
        """
        boxes = cat([instances.proposal_boxes.tensor for instances in proposals])
        return self.box2box_transform.apply_deltas(predictions[1], boxes).split(list(map(len, proposals)))

    def predict_boxes_for_gt_classes(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> tuple[Tensor, ...]:
        """Decode the boxes of the true classes; of any class for background.

        Args:
            predictions: What `forward` gave for the regions of all images.
            proposals: `proposal_boxes` and `gt_classes` of each image.

        Returns:
            (N, 4) XYXY of each image, not clipped.
        """
        boxes = cat([instances.proposal_boxes.tensor for instances in proposals])
        classes = cat([instances.gt_classes for instances in proposals]).clamp(max=self._num_box_sets - 1)
        decoded = self.box2box_transform.apply_deltas(predictions[1], boxes).unflatten(1, (self._num_box_sets, 4))
        own = decoded.gather(1, classes[:, None, None].expand(-1, 1, 4)).squeeze(1)
        return own.split(list(map(len, proposals)))

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]) -> tuple[Tensor, ...]:
        """Compute the class probabilities.

        Args:
            predictions: What `forward` gave for the regions of all images.
            proposals: Instances of each image; only their number counts.

        Returns:
            (N, K + 1) of each image, float32; background last.
        """
        logits = predictions[0].float()
        probs = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(-1)
        return probs.split(list(map(len, proposals)))
