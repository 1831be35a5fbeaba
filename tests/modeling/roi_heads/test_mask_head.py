import math

import numpy as np
import pytest
import torch

from hookline.modeling.layers import ShapeSpec
from hookline.modeling.roi_heads import MaskRCNNConvUpsampleHead, mask_rcnn_inference, mask_rcnn_loss
from hookline.structures import BitMasks, Boxes, Instances, PolygonMasks


def _instances(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat([corner, corner + 8 + torch.rand(count, 2, generator=generator) * 20], 1)
    triangles = [[np.array([x0, y0, x1, y0 + 2, x0 + 3, y1])] for x0, y0, x1, y1 in boxes.tolist()]
    return Instances(
        (60, 60),
        proposal_boxes=Boxes(boxes),
        gt_classes=torch.randint(0, 3, (count,), generator=generator),
        gt_masks=PolygonMasks(triangles),
    )


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("bitmask", [False, True])
def test_loss_equals_a_loop_over_cells(agnostic, bitmask):
    instances = [_instances(3), _instances(0), _instances(2, seed=1)]
    if bitmask:
        for own in instances:
            own.gt_masks = BitMasks.from_polygon_masks(own.gt_masks, 60, 60)
    logits = torch.randn(5, 1 if agnostic else 3, 6, 6)
    want, row = 0.0, 0
    for own in instances:
        targets = own.gt_masks.crop_and_resize(own.proposal_boxes.tensor, 6)
        for n in range(len(own)):
            channel = 0 if agnostic else own.gt_classes[n].item()
            for y in range(6):
                for x in range(6):
                    p = 1 / (1 + math.exp(-logits[row, channel, y, x].item()))
                    want -= math.log(p if targets[n, y, x] else 1 - p)
            row += 1
    assert mask_rcnn_loss(logits, instances).item() == pytest.approx(want / (5 * 36), rel=1e-5)


def test_without_foreground_the_loss_is_zero_and_connected():
    head = MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=3, conv_dims=[4, 4, 4], conv_norm="BN")
    losses = head(torch.randn(0, 4, 5, 5), [_instances(0)])
    losses["loss_mask"].backward()
    assert losses["loss_mask"].item() == 0
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_keys_and_output_size():
    head = MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=3, conv_dims=[8, 6])
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "mask_fcn1.weight": (8, 4, 3, 3), "mask_fcn1.bias": (8,), "deconv.weight": (8, 6, 2, 2), "deconv.bias": (6,),
        "predictor.weight": (3, 6, 1, 1), "predictor.bias": (3,),
    }  # fmt: skip
    assert head.layers(torch.randn(2, 4, 7, 7)).shape == (2, 3, 14, 14)


def test_inference_takes_the_predicted_class():
    logits = torch.randn(3, 4, 5, 5)
    instances = [
        Instances((9, 9), pred_classes=torch.tensor([2, 0])),
        Instances((9, 9), pred_classes=torch.tensor([3])),
    ]
    mask_rcnn_inference(logits, instances)
    torch.testing.assert_close(instances[0].pred_masks[:, 0], logits[[0, 1], [2, 0]].sigmoid())
    torch.testing.assert_close(instances[1].pred_masks[:, 0], logits[2:, 3].sigmoid())


def test_loss_weight_and_refusals():
    instances, x = [_instances(2)], torch.randn(2, 4, 3, 3)
    head = MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=3, conv_dims=[4], loss_weight=3.0)
    assert head(x, instances)["loss_mask"].item() == pytest.approx(3 * mask_rcnn_loss(head.layers(x), instances).item())
    with pytest.raises(ValueError, match="conv_dims is empty"):
        MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=3, conv_dims=[])
    with pytest.raises(ValueError, match="num_classes=0"):
        MaskRCNNConvUpsampleHead(ShapeSpec(channels=4), num_classes=0, conv_dims=[4])
