import math

import pytest
import torch

from hookline.modeling.layers import ShapeSpec
from hookline.modeling.roi_heads import KRCNNConvDeconvUpsampleHead, keypoint_rcnn_loss
from hookline.structures import Boxes, Instances, Keypoints


def _instances(count):
    boxes = torch.tensor([[10.0, 10, 50, 60]]).repeat(count, 1)
    points = torch.cat([torch.rand(count, 4, 2) * 60, torch.randint(0, 3, (count, 4, 1)).float()], 2)
    return Instances((80, 80), proposal_boxes=Boxes(boxes), gt_keypoints=Keypoints(points))


def test_loss_equals_a_loop_over_keypoints():
    instances = [_instances(3), _instances(0), _instances(2)]
    logits = torch.randn(5, 4, 6, 6)
    want, visible, row = 0.0, 0, 0
    for own in instances:
        for n in range(len(own)):
            for k, (x, y, v) in enumerate(own.gt_keypoints.tensor[n].tolist()):
                if v > 0 and 10 <= x <= 50 and 10 <= y <= 60:
                    column, line = min(int((x - 10) / 40 * 6), 5), min(int((y - 10) / 50 * 6), 5)
                    scores = logits[row, k].flatten()
                    want += math.log(scores.exp().sum().item()) - scores[line * 6 + column].item()
                    visible += 1
            row += 1
    assert visible > 3
    assert keypoint_rcnn_loss(logits, instances, None).item() == pytest.approx(want / visible, rel=1e-5)
    assert keypoint_rcnn_loss(logits, instances, 7.0).item() == pytest.approx(want / 7, rel=1e-5)


@pytest.mark.parametrize("normalizer", ["visible", 12.0])
def test_normalisation_and_shapes(normalizer):
    head = KRCNNConvDeconvUpsampleHead(
        ShapeSpec(channels=4), num_keypoints=4, conv_dims=[6, 6], loss_weight=2.0, loss_normalizer=normalizer
    )
    x, instances = torch.randn(5, 4, 3, 3), [_instances(3), _instances(2)]
    assert head.layers(x).shape == (5, 4, 12, 12)
    assert sorted({name.split(".")[0] for name in head.state_dict()}) == ["conv_fcn1", "conv_fcn2", "score_lowres"]
    want = keypoint_rcnn_loss(head.layers(x), instances, None if normalizer == "visible" else 24.0)
    assert head(x, instances)["loss_keypoint"].item() == pytest.approx(2 * want.item())


def test_without_visible_keypoints_the_loss_is_zero_and_connected():
    head = KRCNNConvDeconvUpsampleHead(ShapeSpec(channels=4), num_keypoints=4, conv_dims=[6])
    hidden = _instances(2)
    hidden.gt_keypoints.tensor[..., 2] = 0
    for x, own in ((torch.randn(0, 4, 3, 3), _instances(0)), (torch.randn(2, 4, 3, 3), hidden)):
        head.zero_grad()
        loss = head(x, [own])["loss_keypoint"]
        loss.backward()
        assert loss.item() == 0
        assert all(parameter.grad is not None for parameter in head.parameters())


def test_an_unknown_normalizer_is_refused():
    with pytest.raises(ValueError, match="loss_normalizer='seen' must be a number or 'visible'"):
        KRCNNConvDeconvUpsampleHead(ShapeSpec(channels=4), num_keypoints=4, conv_dims=[6], loss_normalizer="seen")
