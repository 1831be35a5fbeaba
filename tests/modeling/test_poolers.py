import math

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from hookline.modeling.poolers import ROIPooler, assign_boxes_to_levels
from hookline.structures import Boxes

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def _features(batch=2, channels=3):
    return [torch.randn(batch, channels, 64 // 2**level, 96 // 2**level) for level in range(4)]


def _boxes(count):
    corner = torch.rand(count, 2) * torch.tensor([200.0, 100.0])
    side = torch.rand(count, 1).mul(5.5).exp() * torch.rand(count, 2).add(0.5)
    return Boxes(torch.cat([corner, corner + side], 1))


def test_pooling_equals_torchvisions_for_boxes_of_all_sizes():
    features, boxes = _features(), [_boxes(40), _boxes(25)]
    got = ROIPooler((5, 7), SCALES, 2, "ROIAlign")(features, boxes)
    peer = MultiScaleRoIAlign(["0", "1", "2", "3"], (5, 7), 2)
    want = peer({str(i): f for i, f in enumerate(features)}, [b.tensor for b in boxes], [(256, 384)] * 2)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_aligned_pooling_equals_a_loop_over_boxes(memory_format):
    features = [f.contiguous(memory_format=memory_format) for f in _features()]
    boxes = [_boxes(10), _boxes(8)]
    got = ROIPooler(7, SCALES, 0, "ROIAlignV2")(features, boxes)
    rows = iter(got)
    for image, own in enumerate(boxes):
        for x0, y0, x1, y1 in own.tensor.tolist():
            level = min(max(math.floor(4 + math.log2(math.sqrt((x1 - x0) * (y1 - y0)) / 224 + 1e-8)), 2), 5) - 2
            roi = torch.tensor([[image, x0, y0, x1, y1]])
            want = roi_align(features[level], roi, 7, SCALES[level], 0, aligned=True)[0]
            torch.testing.assert_close(next(rows), want, rtol=1e-4, atol=1e-4)


def test_sizes_on_the_bounds_belong_to_the_upper_level():
    sides = torch.tensor([1.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0])
    boxes = Boxes(torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1))
    assert assign_boxes_to_levels([boxes], 2, 5, 224, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_single_level_needs_no_assignment():
    feature, boxes = torch.randn(1, 3, 20, 20), _boxes(6)
    got = ROIPooler(3, [1 / 16], 0, "ROIAlignV2")([feature], [boxes])
    rois = torch.cat([torch.zeros(6, 1), boxes.tensor], 1)
    torch.testing.assert_close(got, roi_align(feature, rois, 3, 1 / 16, 0, True))


def test_roi_pool_takes_maxima():
    got = ROIPooler(1, [1.0], 0, "ROIPool")(
        [torch.arange(16.0).view(1, 1, 4, 4)], [Boxes(torch.tensor([[0.0, 0, 2, 2]]))]
    )
    assert got.item() == 10


def test_without_boxes_the_result_is_empty_and_connected_to_every_level():
    features = [f.requires_grad_() for f in _features()]
    got = ROIPooler(7, SCALES, 0, "ROIAlignV2")(features, [Boxes(torch.zeros(0, 4))] * 2)
    assert got.shape == (0, 3, 7, 7)
    got.sum().backward()
    assert all(f.grad is not None for f in features)


def test_features_in_bfloat16_are_sampled_at_exact_places():
    feature = torch.arange(200.0).expand(1, 1, 3, 200).contiguous().bfloat16()
    boxes = Boxes(torch.tensor([[771.0, 0.0, 779.0, 8.0]]))  # bfloat16 would round 771 to 772
    got = ROIPooler(2, [0.25], 1, "ROIAlignV2")([feature], [boxes])
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got[0, 0, 0].float(), torch.tensor([192.75, 193.75]), rtol=4e-3, atol=0)


@pytest.mark.parametrize(("arguments", "words"), [
    ({"pooler_type": "ROIAlignv2"}, "pooler_type='ROIAlignv2'.*Did you mean 'ROIAlignV2'"),
    ({"scales": (1 / 4, 1 / 16)}, "scales="),
    ({"scales": (0.3,)}, "scales="),
    ({"scales": ()}, "scales="),
    ({"output_size": (7, 0)}, "output_size="),
    ({"canonical_box_size": 0}, "canonical_box_size=0"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(arguments, words):
    arguments = {"output_size": 7, "scales": SCALES, "sampling_ratio": 0, "pooler_type": "ROIAlignV2", **arguments}
    with pytest.raises(ValueError, match=words):
        ROIPooler(**arguments)


def test_inputs_that_do_not_fit_are_refused():
    pooler = ROIPooler(7, SCALES, 0, "ROIAlignV2")
    with pytest.raises(ValueError, match="3 feature maps given to a pooler of 4 scales"):
        pooler(_features()[:3], [_boxes(1)] * 2)
    with pytest.raises(ValueError, match="boxes of 1 images given with features of 2"):
        pooler(_features(), [_boxes(1)])
