import math

import pytest
import torch

from hookline.modeling.box_regression import Box2BoxTransform
from hookline.modeling.layers import ShapeSpec
from hookline.modeling.roi_heads import FastRCNNOutputLayers, fast_rcnn_inference
from hookline.modeling.roi_heads.class_losses import federated_classes
from hookline.structures import Boxes, Instances

K = 3


def _layers(**arguments):
    defaults = {"box2box_transform": Box2BoxTransform((10, 10, 5, 5)), "num_classes": K}
    return FastRCNNOutputLayers(ShapeSpec(channels=6), **{**defaults, **arguments})


def _boxes(count):
    corner = torch.rand(count, 2) * 50
    return torch.cat([corner, corner + torch.rand(count, 2) * 40 + 2], 1)


def _proposals(*counts):
    return [
        Instances(
            (100, 100),
            proposal_boxes=Boxes(_boxes(count)),
            gt_boxes=Boxes(_boxes(count)),
            gt_classes=torch.randint(0, K + 1, (count,)),
        )
        for count in counts
    ]


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_losses_equal_a_loop_over_regions(agnostic, beta):
    layers = _layers(cls_agnostic_bbox_reg=agnostic, smooth_l1_beta=beta)
    proposals = _proposals(7, 5)
    logits, deltas = torch.randn(12, K + 1), torch.randn(12, 4 if agnostic else 4 * K)
    got = layers.losses((logits, deltas), proposals)
    want_cls = want_box = 0.0
    row = 0
    for own in proposals:
        for n in range(len(own)):
            label = own.gt_classes[n].item()
            exps = [math.exp(v) for v in logits[row].tolist()]
            want_cls -= math.log(exps[label] / sum(exps))
            if label < K:
                start = 0 if agnostic else 4 * label
                target = layers.box2box_transform.get_deltas(
                    own.proposal_boxes.tensor[n : n + 1], own.gt_boxes.tensor[n : n + 1]
                )[0]
                for d in (deltas[row, start : start + 4] - target).abs().tolist():
                    want_box += d - 0.5 * beta if d >= beta else 0.5 * d * d / beta
            row += 1
    assert got["loss_cls"].item() == pytest.approx(want_cls / 12, rel=1e-5)
    assert got["loss_box_reg"].item() == pytest.approx(want_box / 12, rel=1e-5)


def test_without_regions_losses_are_zero_and_connected():
    layers = _layers()
    losses = layers.losses(layers(torch.randn(0, 6)), _proposals(0, 0))
    sum(losses.values()).backward()
    assert [loss.item() for loss in losses.values()] == [0, 0]
    assert all(parameter.grad is not None for parameter in layers.parameters())


def test_background_has_no_box_loss_but_a_connected_one():
    layers = _layers()
    (own,) = _proposals(4)
    own.gt_classes = torch.full((4,), K)
    losses = layers.losses(layers(torch.randn(4, 6)), [own])
    losses["loss_box_reg"].backward()
    assert losses["loss_box_reg"].item() == 0
    assert layers.bbox_pred.weight.grad is not None


def test_loss_weights():
    predictions, proposals = (torch.randn(4, K + 1), torch.randn(4, 4 * K)), _proposals(4)
    plain = _layers().losses(predictions, proposals)
    weighted = _layers(loss_weight={"loss_box_reg": 10.0}).losses(predictions, proposals)
    torch.testing.assert_close(weighted["loss_cls"], plain["loss_cls"])
    torch.testing.assert_close(weighted["loss_box_reg"], 10 * plain["loss_box_reg"])


def test_sigmoid_loss_equals_a_loop():
    layers = _layers(use_sigmoid_ce=True)
    logits, classes = torch.randn(5, K + 1), torch.tensor([0, 1, 2, 3, 1])
    want = 0.0
    for row, label in zip(logits.tolist(), classes.tolist(), strict=True):
        for k in range(K):
            p = 1 / (1 + math.exp(-row[k]))
            want -= math.log(p) if k == label else math.log(1 - p)
    assert layers.class_loss(logits, classes).item() == pytest.approx(want / 5, rel=1e-5)
    probs = layers.predict_probs((logits, torch.zeros(5, 12)), _proposals(5))[0]
    torch.testing.assert_close(probs, logits.sigmoid())
    # At the start every class is as rare as in Focal Loss.
    assert layers.cls_score.bias.sigmoid().tolist() == pytest.approx([0.01] * (K + 1))


def test_federated_loss_looks_at_the_classes_in_the_batch_and_drawn_ones():
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    counts = torch.zeros(5)
    for _ in range(50):
        chosen = federated_classes(torch.tensor([1, 5, 1]), weights, 3)
        assert chosen.sum() == 3
        assert chosen[1] == 1
        assert chosen[4] == 0
        counts += chosen
    assert (counts[[0, 2, 3]] > 10).all()
    assert federated_classes(torch.tensor([0, 1, 2]), weights, 1).tolist() == [1, 1, 1, 0, 0]
    layers = _layers(
        use_sigmoid_ce=True, use_fed_loss=True, get_fed_loss_cls_weights=lambda: torch.ones(K), fed_loss_num_classes=1
    )
    logits = torch.randn(4, K + 1, requires_grad=True)
    layers.class_loss(logits, torch.tensor([1, 3, 1, 3])).backward()
    assert (logits.grad.abs().sum(0) > 0).tolist() == [False, True, False, False]


def _naive_inference(boxes, scores, shape, score_thresh, nms_thresh, topk):
    found = []
    for k in range(scores.shape[1] - 1):
        own = []
        for n in scores[:, k].argsort(descending=True).tolist():
            if scores[n, k] <= score_thresh:
                continue
            box = boxes[n].view(-1, 4)[k if boxes.shape[1] > 4 else 0].clone()
            box[0::2].clamp_(0, shape[1])
            box[1::2].clamp_(0, shape[0])
            if all(_iou(box.tolist(), other) <= nms_thresh for _, other, _, _ in own):
                own.append((scores[n, k].item(), box.tolist(), k, n))
        found += own
    return sorted(found, key=lambda item: -item[0])[:topk]


def _iou(a, b):
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return inter / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter, 1e-9)


@pytest.mark.parametrize("agnostic", [False, True])
def test_inference_equals_a_naive_selection(agnostic):
    boxes = torch.cat([_boxes(40) for _ in range(1 if agnostic else K)], 1)
    scores = torch.randn(40, K + 1).mul(2).softmax(1)
    (own,), (index,) = fast_rcnn_inference([boxes], [scores], [(60, 70)], 0.2, 0.4, 15)
    want = _naive_inference(boxes, scores, (60, 70), 0.2, 0.4, 15)
    torch.testing.assert_close(own.scores, torch.tensor([item[0] for item in want]))
    torch.testing.assert_close(own.pred_boxes.tensor, torch.tensor([item[1] for item in want]))
    assert own.pred_classes.tolist() == [item[2] for item in want]
    assert index.tolist() == [item[3] for item in want]
    assert own.image_size == (60, 70)


def test_inference_leaves_out_what_is_not_finite_and_takes_images_without_regions():
    boxes, scores = _boxes(4).repeat(1, K), torch.rand(4, K + 1)
    boxes[1, 0], scores[2, 1] = math.nan, math.inf
    (own, empty), (index, none) = fast_rcnn_inference(
        [boxes, boxes[:0]], [scores, scores[:0]], [(99, 99)] * 2, 0.0, 1.0, -1
    )
    assert sorted(set(index.tolist())) == [0, 3]
    assert len(own) == 2 * K
    assert len(empty) == len(none) == 0


def test_predictions_are_split_by_image_and_boxes_of_true_classes_are_found():
    layers, proposals = _layers(), _proposals(3, 0, 2)
    predictions = layers(torch.randn(5, 2, 3))
    assert [len(part) for part in layers.predict_boxes(predictions, proposals)] == [3, 0, 2]
    own = layers.predict_boxes_for_gt_classes(predictions, proposals)
    for part, every, one in zip(own, layers.predict_boxes(predictions, proposals), proposals, strict=True):
        for n in range(len(one)):
            k = min(one.gt_classes[n].item(), K - 1)
            torch.testing.assert_close(part[n], every[n, 4 * k : 4 * k + 4])
    results, _ = layers.inference(predictions, proposals)
    assert [one.image_size for one in results] == [(100, 100)] * 3


@pytest.mark.parametrize(("arguments", "words"), [
    ({"num_classes": 0}, "num_classes=0"),
    ({"test_score_thresh": 5}, "test_score_thresh=5"),
    ({"box_reg_loss_type": "iou"}, "box_reg_loss_type='iou'"),
    ({"loss_weight": {"loss_clss": 1.0}}, "Did you mean 'loss_cls'"),
    ({"use_fed_loss": True}, "use_fed_loss=True needs use_sigmoid_ce=True"),
    ({"use_fed_loss": True, "use_sigmoid_ce": True, "get_fed_loss_cls_weights": lambda: torch.ones(9)},
     "num_classes=3"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        _layers(**arguments)
