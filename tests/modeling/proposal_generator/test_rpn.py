import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hookline.modeling.anchor_generator import DefaultAnchorGenerator
from hookline.modeling.box_regression import Box2BoxTransform
from hookline.modeling.matcher import Matcher
from hookline.modeling.proposal_generator import RPN, StandardRPNHead
from hookline.structures import Boxes, ImageList, Instances

SIZES = [(64, 96), (50, 80)]


def _rpn(**arguments):
    defaults = {
        "in_features": ["p2", "p3"],
        "head": StandardRPNHead(in_channels=4, num_anchors=2),
        "anchor_generator": DefaultAnchorGenerator(sizes=[[16], [32]], aspect_ratios=[0.5, 2.0], strides=[8, 16]),
        "anchor_matcher": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": Box2BoxTransform([1.0, 1.0, 1.0, 1.0]),
        "batch_size_per_image": 100_000,
        "positive_fraction": 0.5,
        "pre_nms_topk": (60, 40),
        "post_nms_topk": (30, 20),
    }
    return RPN(**{**defaults, **arguments})


def _inputs():
    features = {"p2": torch.randn(2, 4, 8, 12), "p3": torch.randn(2, 4, 4, 6)}
    return ImageList(torch.zeros(2, 3, 64, 96), SIZES), features


def _targets(*box_lists):
    return [
        Instances(size, gt_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)))
        for size, boxes in zip(SIZES, box_lists, strict=True)
    ]


# Odd places, so that no two anchors overlap an object equally well.
BOXES = [[[10.3, 9.1, 41.7, 31.2], [50.9, 21.4, 88.3, 58.6]], [[5.2, 4.7, 21.3, 39.9]]]


def _iou(a, b):
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou"])
@pytest.mark.parametrize("boundary", [-1, 4])
def test_losses_equal_a_loop_over_anchors(kind, boundary):
    # Everything is sampled: 100,000 are wanted, and half of that may be foreground.
    rpn = _rpn(box_reg_loss_type=kind, anchor_boundary_thresh=boundary)
    _, features = images_and_features = _inputs()
    targets = _targets(*BOXES)
    _, losses = rpn(*images_and_features, targets)
    maps = list(features.values())
    anchors = [a for level in rpn.anchor_generator(maps) for a in level.tensor.tolist()]
    score_maps, delta_maps = rpn.rpn_head(maps)
    want_cls = want_loc = 0.0
    for image, (height, width) in enumerate(SIZES):
        logits, deltas = [], []
        for score, delta in zip(score_maps, delta_maps, strict=True):
            for y in range(score.shape[2]):
                for x in range(score.shape[3]):
                    for a in range(2):
                        logits.append(score[image, a, y, x].item())
                        deltas.append(delta[image, 4 * a : 4 * a + 4, y, x].detach())
        gts = targets[image].gt_boxes.tensor.tolist()
        overlap = [[_iou(gt, anchor) for anchor in anchors] for gt in gts]
        best_of_gt = [max(row) for row in overlap]
        for n, anchor in enumerate(anchors):
            column = [row[n] for row in overlap]
            best = max(column)
            positive = best >= 0.7 or any(abs(q - b) < 1e-7 and q > 0 for q, b in zip(column, best_of_gt, strict=True))
            outside = not (
                anchor[0] >= -4 and anchor[1] >= -4 and anchor[2] < width + 4 and anchor[3] < height + 4
            )  # fmt: skip
            if (boundary >= 0 and outside) or (best >= 0.3 and not positive):
                continue
            want_cls += math.log1p(math.exp(-logits[n] if positive else logits[n]))
            if positive:
                source = torch.tensor([anchor])
                target = torch.tensor([gts[column.index(best)]])
                if kind == "smooth_l1":
                    want = rpn.box2box_transform.get_deltas(source, target)[0]
                    want_loc += (deltas[n] - want).abs().sum().item()
                else:
                    box = rpn.box2box_transform.apply_deltas(deltas[n][None], source)[0].tolist()
                    gt = target[0].tolist()
                    area = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, gt)]
                    hull = (max(box[2], gt[2]) - min(box[0], gt[0])) * (max(box[3], gt[3]) - min(box[1], gt[1]))
                    iou = _iou(box, gt)
                    union = sum(area) / (1 + iou)
                    want_loc += 1 - iou + (hull - union) / hull
    assert losses["loss_rpn_cls"].item() * 200_000 == pytest.approx(want_cls, rel=1e-4)
    assert losses["loss_rpn_loc"].item() * 200_000 == pytest.approx(want_loc, rel=1e-4)


def test_loss_weights_by_number_and_by_name():
    inputs, targets = _inputs(), _targets(*BOXES)
    rpn = _rpn()
    _, plain = rpn(*inputs, targets)
    for weight, factors in ((2.0, (2, 2)), ({"loss_rpn_loc": 3.0}, (1, 3))):
        other = _rpn(head=rpn.rpn_head, loss_weight=weight)
        _, weighted = other(*inputs, targets)
        for name, factor in zip(("loss_rpn_cls", "loss_rpn_loc"), factors, strict=True):
            torch.testing.assert_close(weighted[name], plain[name] * factor)


def test_images_without_objects_give_losses_that_are_connected():
    rpn = _rpn(batch_size_per_image=16)
    _, losses = rpn(*_inputs(), _targets([], []))
    sum(losses.values()).backward()
    assert losses["loss_rpn_loc"].item() == 0
    assert losses["loss_rpn_cls"].item() > 0
    assert all(parameter.grad is not None for parameter in rpn.parameters())


def _naive_proposals(rpn, images, features, training):
    maps = list(features.values())
    anchors = rpn.anchor_generator(maps)
    scores, deltas = rpn.rpn_head(maps)
    results = []
    for image, (height, width) in enumerate(images.image_sizes):
        pool = []
        for level, (boxes, score, delta) in enumerate(zip(anchors, scores, deltas, strict=True)):
            flat = score[image].permute(1, 2, 0).reshape(-1)
            offsets = delta[image].permute(1, 2, 0).reshape(-1, 4)
            decoded = rpn.box2box_transform.apply_deltas(offsets, boxes.tensor)
            chosen = []
            for n in flat.argsort(descending=True)[: rpn.pre_nms_topk[training]].tolist():
                x0, y0, x1, y1 = decoded[n].tolist()
                box = [min(max(x0, 0), width), min(max(y0, 0), height), min(max(x1, 0), width), min(max(y1, 0), height)]
                if box[2] - box[0] > rpn.min_box_size and box[3] - box[1] > rpn.min_box_size:
                    chosen.append((flat[n].item(), box, level))
            kept = []
            for candidate in chosen:
                if all(_iou(candidate[1], other[1]) <= rpn.nms_thresh for other in kept):
                    kept.append(candidate)
            pool += kept
        pool.sort(key=lambda item: -item[0])
        results.append(pool[: rpn.post_nms_topk[training]])
    return results


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("min_box_size", [0.0, 12.0])
def test_proposals_equal_a_naive_selection(training, min_box_size):
    rpn = _rpn(nms_thresh=0.5, min_box_size=min_box_size).train(training)
    images, features = _inputs()
    for parameter in rpn.rpn_head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    proposals, losses = rpn(images, features, _targets(*BOXES) if training else None)
    assert bool(losses) == training
    for own, want in zip(proposals, _naive_proposals(rpn, images, features, training), strict=True):
        assert 0 < len(own) == len(want)
        torch.testing.assert_close(own.objectness_logits, torch.tensor([item[0] for item in want]))
        torch.testing.assert_close(own.proposal_boxes.tensor, torch.tensor([item[1] for item in want]))
        assert not own.proposal_boxes.tensor.requires_grad
    assert [own.image_size for own in proposals] == SIZES


def test_boxes_that_are_not_finite_are_dropped():
    rpn = _rpn().eval()
    images, features = _inputs()
    features["p2"][0, :, :4] = math.nan
    features["p3"][1] = math.inf
    for own in rpn(images, features)[0]:
        assert len(own)
        assert own.proposal_boxes.tensor.isfinite().all()
        assert own.objectness_logits.isfinite().all()


def test_where_nothing_is_left_there_are_no_proposals():
    rpn = _rpn(min_box_size=1e6).eval()
    assert [len(own) for own in rpn(*_inputs())[0]] == [0, 0]


def test_losses_never_wait_for_the_device():
    rpn, (_, features) = _rpn(batch_size_per_image=16), _inputs()
    maps, targets = list(features.values()), _targets(*BOXES)
    scores, offsets = rpn.rpn_head(maps)
    logits = [score.permute(0, 2, 3, 1).flatten(1) for score in scores]
    deltas = [offset.permute(0, 2, 3, 1).unflatten(3, (-1, 4)).flatten(1, 3) for offset in offsets]
    anchors = rpn.anchor_generator(maps)
    with _CountWaits() as waits:
        sum(rpn.losses(anchors, logits, deltas, targets).values()).backward()
    assert waits.seen == []


class _CountWaits(TorchDispatchMode):
    """Record the operations whose result has a size, or is a number, that only the device knows."""

    def __enter__(self):
        self.seen = []
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or name in (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "_unique2",
            "unique_dim",
            "repeat_interleave",
        ):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_training_without_ground_truths_is_refused():
    with pytest.raises(ValueError, match="gt_instances in training"):
        _rpn()(*_inputs())


@pytest.mark.parametrize(("arguments", "words"), [
    ({"box_reg_loss_type": "smooth_l2"}, "box_reg_loss_type='smooth_l2'.*Did you mean 'smooth_l1'"),
    ({"loss_weight": {"loss_rpn_box": 1.0}}, "loss_weight: name='loss_rpn_box'.*'loss_rpn_loc'"),
    ({"positive_fraction": 1.5}, "positive_fraction=1.5"),
    ({"batch_size_per_image": 0}, "batch_size_per_image=0"),
    ({"nms_thresh": -0.1}, "nms_thresh=-0.1"),
    ({"pre_nms_topk": (100,)}, r"pre_nms_topk=\[100\]"),
    ({"in_features": ["p2"]}, "in_features has 1 levels, anchor_generator 2"),
    ({"head": StandardRPNHead(in_channels=4, num_anchors=3)}, r"num_anchors=3, but anchor_generator places \[2, 2\]"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    with pytest.raises(ValueError, match=words):
        _rpn(**arguments)
